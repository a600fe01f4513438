// A map over a photo: a canvas as large as the element that it lies in, the photo shaded by the map.
import { useEffect, useRef } from "preact/hooks";
import { mediaUrl } from "../lib/api";
import type { Box } from "../lib/geometry";
import { scaleStops, shade, type Grid, type Shading } from "../lib/heat";

/** Long side of what is shaded, in pixels: more would keep the page from answering for a moment. */
const SHARP = 1080;

export function HeatMap(props: { media: string; grid: Grid; square: Box; how: Shading; opacity: number }) {
  const ref = useRef<HTMLCanvasElement>(null);
  const { media, grid, square, how } = props;
  useEffect(() => {
    let wanted = true;
    const photo = new Image();
    photo.src = mediaUrl(media, "large");
    void photo.decode().then(() => {
      const canvas = ref.current;
      if (!wanted || !canvas) return;
      const scale = Math.min(1, SHARP / Math.max(photo.naturalWidth, photo.naturalHeight));
      canvas.width = Math.round(photo.naturalWidth * scale);
      canvas.height = Math.round(photo.naturalHeight * scale);
      const pen = canvas.getContext("2d", { willReadFrequently: true })!;
      pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
      const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
      shade(pixels.data, canvas.width, canvas.height, grid, square, how);
      pen.putImageData(pixels, 0, 0);
    }, () => undefined); // The photo beneath says that it cannot be shown.
    return () => {
      wanted = false;
    };
  }, [media, grid, square, how]);
  return <canvas ref={ref} class="heatmap" style={{ opacity: props.opacity }} aria-hidden="true" />;
}

/** What bright means. */
export function HeatKey(props: { how: Shading; what: string }) {
  if (props.how === "dimmed") {
    return (
      <p class="heatkey heatkey-one small faint">
        <span class="heatkey-line" aria-hidden="true" />
        <span>Colour is kept where {props.what}; the line is at half of the most. Dark margins were not seen by the encoder.</span>
      </p>
    );
  }
  return (
    <p class="heatkey small faint">
      <span>Nothing</span>
      <span class="heatkey-scale" style={{ backgroundImage: `linear-gradient(to right, ${scaleStops()})` }} aria-hidden="true" />
      <span>Most</span>
      <span>Bright is where {props.what}. Grey margins were not seen by the encoder.</span>
    </p>
  );
}

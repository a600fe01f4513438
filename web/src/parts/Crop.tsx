// A box of a photo, enlarged to a square with what is around it, so that nothing is stretched.
import { useState } from "preact/hooks";
import { mediaUrl, type Size as Sharp } from "../lib/api";
import { percent, squareAround, type Box, type Size } from "../lib/geometry";

export function Crop(props: { media: string; box: Box; alt: string; margin?: number; size?: Sharp; class?: string }) {
  const [photo, setPhoto] = useState<Size | null>(null);
  const [bad, setBad] = useState(false);
  // Until its size is known the photo is laid out as if it were square, out of sight.
  const [x0, y0, x1, y1] = squareAround(props.box, photo ?? { width: 1, height: 1 }, props.margin);
  const style = {
    width: percent(1 / (x1 - x0)), height: percent(1 / (y1 - y0)),
    left: percent(-x0 / (x1 - x0)), top: percent(-y0 / (y1 - y0)),
    visibility: photo ? "visible" : "hidden",
  } as const;
  return (
    <span class={`crop ${props.class ?? ""}`}>
      {bad ? <span class="crop-bad" role="img" aria-label={`${props.alt} (cannot be shown)`}>?</span> : (
        <img style={style} src={mediaUrl(props.media, props.size ?? "medium")} alt={props.alt} draggable={false} decoding="async" loading="lazy"
          onLoad={(event) => setPhoto({ width: event.currentTarget.naturalWidth, height: event.currentTarget.naturalHeight })}
          onError={() => setBad(true)} />
      )}
    </span>
  );
}

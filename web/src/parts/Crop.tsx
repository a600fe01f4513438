// A box of a photo with what is around it: enlarged to a square, or as much of the photo as a shape allows. Nothing is stretched.
import { useState } from "preact/hooks";
import { mediaUrl, type Size as Sharp } from "../lib/api";
import { behind, placed, squareAround, windowAround, within, type Box, type Size } from "../lib/geometry";

export function Crop(props: {
  media: string; box: Box; alt: string; size?: Sharp; class?: string;
  /** What is shown around the box, as a share of its longer side. */
  margin?: number;
  /** Width through height of what is shown: then as much of the photo as it allows, the box in it. */
  ratio?: number;
  /** Whether the box is drawn. */
  drawn?: boolean;
}) {
  const [photo, setPhoto] = useState<Size | null>(null);
  const [bad, setBad] = useState(false);
  // Until its size is known the photo is laid out as if it were square, out of sight.
  const known = photo ?? { width: 1, height: 1 };
  const shown = props.ratio === undefined ? squareAround(props.box, known, props.margin) : windowAround(props.box, known, props.ratio);
  return (
    <span class={`crop ${props.class ?? ""}`}>
      {bad ? <span class="crop-bad" role="img" aria-label={`${props.alt} (cannot be shown)`}>?</span> : (
        <img style={{ ...behind(shown), visibility: photo ? "visible" : "hidden" }} src={mediaUrl(props.media, props.size ?? "medium")} alt={props.alt} draggable={false} decoding="async" loading="lazy"
          onLoad={(event) => setPhoto({ width: event.currentTarget.naturalWidth, height: event.currentTarget.naturalHeight })}
          onError={() => setBad(true)} />
      )}
      {props.drawn && photo && !bad && <span class="match-box" style={placed(within(props.box, shown))} />}
    </span>
  );
}

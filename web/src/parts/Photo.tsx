// A photo of the index or an uploaded one, by its content's hash; what cannot be shown says so.
import { useState } from "preact/hooks";
import { mediaUrl, type Size } from "../lib/api";

export function Photo(props: { media: string; alt: string; size?: Size; class?: string; eager?: boolean }) {
  const [bad, setBad] = useState(false);
  if (bad) return <span class={`photo-bad ${props.class ?? ""}`} role="img" aria-label={`${props.alt} (cannot be shown)`}>?</span>;
  return (
    <img
      class={props.class}
      src={mediaUrl(props.media, props.size ?? "small")}
      alt={props.alt}
      loading={props.eager ? "eager" : "lazy"}
      decoding="async"
      draggable={false}
      onError={() => setBad(true)}
    />
  );
}

// A photo of the index or an uploaded one, by its content's hash; what cannot be shown says so, and is tried again.
import { useState } from "preact/hooks";
import { mediaUrl, type Size } from "../lib/api";
import { again, askAgain } from "../lib/retry";

/** Whether a photo cannot be shown for now, and what to call when loading it failed. */
export function useBad(of: string): [boolean, () => void] {
  const [failed, setFailed] = useState<{ of: string; round: number } | null>(null);
  const fail = () => {
    setFailed({ of, round: again.peek() });
    askAgain();
  };
  return [failed !== null && failed.of === of && failed.round === again.value, fail];
}

export function Photo(props: { media: string; alt: string; size?: Size; class?: string; eager?: boolean }) {
  const [bad, fail] = useBad(props.media);
  if (bad) return <span class={`photo-bad ${props.class ?? ""}`} role="img" aria-label={`${props.alt} (cannot be shown)`}>?</span>;
  return (
    <img
      class={props.class}
      src={mediaUrl(props.media, props.size ?? "small")}
      alt={props.alt}
      loading={props.eager ? "eager" : "lazy"}
      decoding="async"
      draggable={false}
      onError={fail}
    />
  );
}

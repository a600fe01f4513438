// Something is being computed: what, and how far it is. Shown after a moment, so that what is quick does not flicker.
import type { Working } from "../lib/api";
import "../styles/parts.css";

export function Progress(props: { working: Working | null; what?: string; small?: boolean }) {
  const { working } = props;
  const told = working?.what || props.what || "Working";
  const what = `${told.charAt(0).toUpperCase()}${told.slice(1)}`;
  const known = working !== null && working.total > 0;
  const words = known ? `${what}: ${working.done.toLocaleString("en")} of ${working.total.toLocaleString("en")}` : what;
  return (
    <div class={`progress${props.small ? " progress-small" : ""}`} role="status">
      <span class="progress-words">{words}</span>
      <progress class="progress-bar" aria-label={what} {...(known ? { value: working.done, max: working.total } : {})} />
    </div>
  );
}

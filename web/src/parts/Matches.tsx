// What a search found: photos in rows of one height, best first, each with its score and the place that was found.
import { useEffect, useRef } from "preact/hooks";
import { clamp, WHOLE } from "../lib/geometry";
import { useShortcuts } from "../lib/keys";
import { fileOf, score } from "../lib/names";
import { nameOf } from "../state/names";
import { lastCompared, type Hit } from "../state/search";
import { Crop } from "./Crop";
import { SearchIcon } from "./LookIcons";

/** Very wide and very tall photos are cut a little, and all of them where the service does not tell how wide they are. */
const ratioOf = (hit: Hit) => (hit.width && hit.height ? clamp(hit.width / hit.height, 0.6, 2.2) : 4 / 3);

/** The next element in a direction, in rows of uneven width; null at the edge. */
export function towards<T extends Element>(elements: readonly T[], from: T, key: string): T | null {
  const index = elements.indexOf(from);
  if (key === "ArrowRight") return elements[index + 1] ?? null;
  if (key === "ArrowLeft") return elements[index - 1] ?? null;
  if (key === "Home") return elements[0] ?? null;
  if (key === "End") return elements.at(-1) ?? null;
  const own = from.getBoundingClientRect();
  const middle = own.left + own.width / 2;
  const down = key === "ArrowDown";
  let best: T | null = null;
  let cost = Infinity;
  for (const one of elements) {
    const box = one.getBoundingClientRect();
    const rows = down ? box.top - own.top : own.top - box.top;
    if (rows < own.height / 2) continue;
    const distance = rows * 10 + Math.abs(box.left + box.width / 2 - middle);
    if (distance < cost) [best, cost] = [one, distance];
  }
  return best;
}

export function Matches(props: {
  hits: readonly Hit[]; busy: boolean; closeUps: boolean;
  onCompare: (hit: Hit) => void; onSearch: (hit: Hit) => void;
}) {
  const list = useRef<HTMLUListElement>(null);
  const all = () => [...list.current!.querySelectorAll<HTMLElement>(".match-photo")];
  const focused = () => all().findIndex((one) => one === document.activeElement);
  const step = (by: number) => all()[Math.max(0, focused() + by)]?.focus();
  useEffect(() => {
    const place = props.hits.findIndex((hit) => hit.key === lastCompared.peek());
    lastCompared.value = null;
    all()[place]?.focus();
  }, []);
  // Other matches come in place of the one that has the focus: the first of them takes it, so that keys go on working.
  const held = useRef<string | null>(null);
  useEffect(() => {
    if (held.current === null || document.activeElement !== document.body) return;
    const place = props.hits.findIndex((hit) => hit.key === held.current);
    all()[Math.max(0, place)]?.focus();
  }, [props.hits]);
  useShortcuts([
    { key: "n", what: "Next match", run: () => step(1) },
    { key: "p", what: "Match before", run: () => step(-1) },
    { key: "s", what: "Search with the match that has the focus", run: () => focused() >= 0 && props.onSearch(props.hits[focused()]!) },
  ], [props.hits]);
  function keys(event: KeyboardEvent) {
    const own = (event.target as HTMLElement).closest<HTMLElement>(".match-photo");
    if (!own || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || !/^(Arrow|Home|End)/.test(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    towards(all(), own, event.key)?.focus();
  }
  return (
    <ul ref={list} class={`matches ${props.closeUps ? "matches-close" : ""} ${props.busy ? "matches-busy" : ""}`} aria-busy={props.busy} onKeyDown={keys}
      onFocusCapture={() => { held.current = props.hits[focused()]?.key ?? null; }} onBlurCapture={(event) => { if (event.relatedTarget) held.current = null; }}>
      {props.hits.map((hit, index) => {
        const name = hit.label === null ? "not labelled" : nameOf(hit.label);
        const ratio = props.closeUps ? 1 : ratioOf(hit);
        const alt = `${name}, ${fileOf(hit.key)}`;
        return (
          <li class="match" key={hit.key} style={{ "--ratio": ratio }}>
            <button class="match-photo" onClick={() => props.onCompare(hit)} style={{ aspectRatio: ratio }}
              aria-label={`${index + 1}: ${name}, similarity ${score(hit.score)}, ${fileOf(hit.key)}. Compare`}>
              {props.closeUps
                ? <Crop media={hit.media} box={hit.box ?? WHOLE} alt={alt} margin={0.15} />
                : <Crop media={hit.media} box={hit.box ?? WHOLE} alt={alt} ratio={ratio} drawn={Boolean(hit.box)} class="match-crop" />}
              {hit.missing && <span class="match-missing">file is gone</span>}
            </button>
            <button class="match-search" aria-label={`Search with this one: ${alt}`} title="Search with this one (S)" onClick={() => props.onSearch(hit)}><SearchIcon /></button>
            <div class="match-line">
              <span class={hit.label === null ? "faint" : "match-name"} title={hit.label ?? undefined}>{name}</span>
              <span class="match-score">{score(hit.score)}</span>
            </div>
            <div class="match-file faint" title={hit.key}>{fileOf(hit.key)}</div>
          </li>
        );
      })}
      <li class="match-rest" aria-hidden="true" />
    </ul>
  );
}

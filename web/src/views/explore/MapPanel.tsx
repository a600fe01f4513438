// The map with its legend; what is drawn around becomes what the grid shows and what is chosen.
import { useEffect, useMemo, useState } from "preact/hooks";
import { plural } from "../../lib/names";
import type { Rgb } from "../../lib/oklch";
import { Empty } from "../../parts/Empty";
import { Icon } from "../../parts/Icon";
import { PhotoMap, type How } from "../../parts/Map";
import { css, type Entry } from "../../parts/palette";
import { Progress } from "../../parts/Progress";
import { selection, table } from "../../state/library";
import { nameOf } from "../../state/names";
import { openPhoto } from "./FilterBar";
import { Hint } from "./Hint";
import { captionOf, clusters, filtered, lasso, lassoing, map, outliers, paint, paintBy, paints, place, pointed, type PaintBy } from "./state";

/** From so many photos on it makes sense to draw around some. */
const fewest = 12;
const paintNames: Record<PaintBy, string> = {
  label: "Label", guess: "Likely label", cluster: "Group", outlier: "Unlike all others", plain: "One colour",
};

function enclose(rows: number[], how: How): void {
  const next = new Set(how === "new" ? [] : selection.peek());
  for (const row of rows) {
    if (how === "less") next.delete(row);
    else next.add(row);
  }
  selection.value = next;
  const before = lasso.peek();
  if (how === "less") {
    if (before) lasso.value = new Set([...before].filter((row) => !rows.includes(row)));
  } else if (rows.length) lasso.value = new Set([...(how === "add" ? before ?? [] : []), ...rows]);
}

export function MapPanel() {
  const columns = table.value;
  const [legend, setLegend] = useState(innerWidth > 800 && innerHeight > 560);
  /** The many kinds with soft colours are named too. */
  const [all, setAll] = useState(false);
  useEffect(() => map.need(), [columns?.snapshot]);
  const answer = map.value.value;
  const places = useMemo(() => answer && { x: Float32Array.from(answer.x), y: Float32Array.from(answer.y) }, [answer]);
  if (map.error.value && !places) {
    return <Empty icon="map" alert title="There is no map">{map.error.value}<button class="button" onClick={map.again}>Try again</button></Empty>;
  }
  // A map of other photos than the table's would put names to the wrong points.
  if (!columns || !places || answer?.snapshot !== columns.snapshot) return <div class="map-wait"><Progress working={map.working.value} what="Making the map" /></div>;
  const busy = paintBy.value === "cluster" ? clusters : paintBy.value === "outlier" ? outliers : null;
  const few = paint.value.legend.filter((entry) => !entry.more);
  const more = paint.value.legend.filter((entry) => entry.more);
  const name = (entry: Entry) => (paintBy.value === "label" || paintBy.value === "guess" ? nameOf(entry.name) : entry.name);
  return (
    <div class="map-panel">
      {columns.keys.length >= fewest && <Hint />}
      <PhotoMap name={`Map of ${plural(columns.keys.length, "photo")}`} x={places.x} y={places.y} paint={paint.value} shown={filtered.value} lassoing={lassoing}
        chosen={selection} pointed={pointed} caption={captionOf} onHover={() => undefined} onOpen={(row) => openPhoto(columns.keys[row])} onEnclose={enclose}>
        {!answer.final && <Sketch />}
      </PhotoMap>
      <div class={`legend${legend && all && more.length ? " legend-all" : ""}`}>
        <div class="legend-by"><label for="legend-by">Colour</label>
          <select class="field" id="legend-by" value={paintBy.value} onChange={(event) => place({ colour: event.currentTarget.value }, true)}>
            {paints.map((one) => <option key={one} value={one}>{paintNames[one]}</option>)}
          </select>
          {paint.value.legend.length > 0 && <button class="legend-fold" aria-expanded={legend} aria-label="Meaning of the colours" title="Meaning of the colours" onClick={() => setLegend(!legend)}><Icon name={legend ? "down" : "up"} size={16} /></button>}
        </div>
        {busy && !busy.value.value && (busy.error.value ? <p class="legend-note">{busy.error.value}</p> : <Progress small working={busy.working.value} what="Computing" />)}
        {legend && paint.value.legend.length > 0 && (
          <ul class="legend-list" aria-label={`Colours: ${paintNames[paintBy.value]}`}>
            {(all ? [...few, ...more] : few).map((entry) => (
              <li key={entry.name}>
                <button title={`${entry.name}: choose all ${entry.count.toLocaleString("en")}`} onClick={(event) => {
                  const { group } = paint.value;
                  const all: number[] = [];
                  for (let row = 0; row < group.length; row++) if (entry.groups.includes(group[row]!) && (!filtered.value || filtered.value[row])) all.push(row);
                  selection.value = new Set([...(event.shiftKey ? selection.peek() : []), ...all]);
                }}>
                  <span class="legend-dot" style={{ background: dot(entry.colours) }} />
                  <span class="legend-name">{name(entry)}</span>
                  <span class="legend-count">{entry.count.toLocaleString("en")}</span>
                </button>
              </li>
            ))}
            {more.length > 0 && (
              <li>
                <button aria-expanded={all} onClick={() => setAll(!all)} title={all ? "Name the most frequent only" : "Name all colours"}>
                  <span class="legend-dot" style={{ background: dot(more.flatMap((entry) => entry.colours).slice(0, mostInDot)) }} />
                  <span class="legend-name">{all ? "Fewer" : `${more.length.toLocaleString("en")} more`}</span><Icon name={all ? "up" : "down"} size={14} />
                </button>
              </li>
            )}
          </ul>
        )}
        {map.error.value && <p class="legend-note">{map.error.value}</p>}
      </div>
    </div>
  );
}

/** More colours are not seen on so small a disc. */
const mostInDot = 12;

/** Several colours share the disc. */
function dot(colours: readonly Rgb[]): string {
  if (colours.length === 1) return css(colours[0]!);
  const part = 100 / colours.length;
  return `conic-gradient(${colours.map((colour, at) => `${css(colour)} ${at * part}% ${(at + 1) * part}%`).join(", ")})`;
}

function Sketch() {
  const working = map.working.value;
  return (
    <div class="map-sketch" role="status">
      <span>A first sketch; a better map comes by itself</span>
      <progress aria-label="Making the map" {...(working && working.total > 0 ? { value: working.done, max: working.total } : {})} />
    </div>
  );
}

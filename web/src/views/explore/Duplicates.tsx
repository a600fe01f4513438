// The same photo twice, bursts, and photos that are merely very alike: told apart, because only the first may go.
import { useEffect, useState } from "preact/hooks";
import { Empty } from "../../parts/Empty";
import { fileName } from "../../parts/Grid";
import { Photo } from "../../parts/Photo";
import { Progress } from "../../parts/Progress";
import { labels, selection, table } from "../../state/library";
import { openPhoto } from "./FilterBar";
import { nameOf } from "../../state/names";
import { duplicates, shown, type DuplicateKind } from "./state";

const kinds: Record<DuplicateKind, { name: string; what: string }> = {
  exact: { name: "Same file", what: "Byte for byte the same." },
  same: { name: "Same photo", what: "The same photo saved again: another size, another quality." },
  burst: { name: "Burst", what: "Taken within moments of one another; not duplicates, but they must not be split between training and test." },
  alike: { name: "Very alike", what: "Look nearly the same to the encoder. For look-alikes that is no proof of anything." },
};
const order: readonly DuplicateKind[] = ["exact", "same", "burst", "alike"];
const atOnce = 40;

export function Duplicates() {
  const answer = duplicates.value.value;
  const [kind, setKind] = useState<DuplicateKind | null>(null);
  const [many, setMany] = useState(atOnce);
  useEffect(() => setMany(atOnce), [kind, answer]);
  const columns = table.value;
  if (duplicates.error.value) return <Empty icon="copies" alert title="They cannot be found">{duplicates.error.value}<button class="button" onClick={duplicates.again}>Try again</button></Empty>;
  if (!answer || !columns) return <Progress working={duplicates.working.value} what="Looking for photos that are nearly the same" />;
  const left = shown.value;
  const all = answer.groups.filter((group) => !left || group.rows.some((row) => left[row]));
  if (!all.length) return <Empty icon="copies" title={answer.groups.length ? "None that the filter leaves" : "No two photos are the same or nearly so"} />;
  const of = (one: DuplicateKind) => all.filter((group) => group.kind === one);
  const now = kind !== null && of(kind).length ? kind : order.find((one) => of(one).length)!;
  const groups = of(now);
  return (
    <div class="groups">
      <div class="side-head">
        <div class="row" role="group" aria-label="Kind">
          {order.filter((one) => of(one).length).map((one) => (
            <button key={one} class="button" aria-pressed={one === now} onClick={() => setKind(one)}>{kinds[one].name} <span class="faint">{of(one).length.toLocaleString("en")}</span></button>
          ))}
        </div>
        <p>{kinds[now].what}</p>
      </div>
      <ul class="twins">
        {groups.slice(0, many).map((group) => (
          <li key={group.rows.join(",")} class="twin">
            <div class="twin-head">
              <span>{group.rows.length} photos{now === "exact" ? "" : <>, likeness {group.cosine.toFixed(2)}</>}</span>
              <button class="button button-plain small" onClick={() => (selection.value = new Set([...selection.peek(), ...group.rows.slice(1)]))}>Choose all but the first</button>
            </div>
            <div class="twin-photos">
              {group.rows.map((row) => (
                <button key={row} class={`twin-photo${selection.value.has(row) ? " twin-chosen" : ""}`} title={columns.keys[row]} onClick={(event) => {
                  if (!event.ctrlKey && !event.metaKey) return openPhoto(columns.keys[row]);
                  const next = new Set(selection.peek());
                  if (!next.delete(row)) next.add(row);
                  selection.value = next;
                }}>
                  <Photo media={columns.media[row]!} alt="" size="medium" />
                  <span class="twin-name">{fileName(columns.keys[row]!)}</span>
                  <span class="twin-label">{labels.value[row] == null ? "No label" : nameOf(labels.value[row])}</span>
                </button>
              ))}
            </div>
          </li>
        ))}
      </ul>
      {groups.length > many && <button class="button groups-more" onClick={() => setMany(many + atOnce)}>Show more ({(groups.length - many).toLocaleString("en")})</button>}
    </div>
  );
}

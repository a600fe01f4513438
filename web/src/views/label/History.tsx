// What was labelled, by whom and when; each step can be taken back.
import { signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { get } from "../../lib/api";
import { when } from "../../lib/names";
import { tell, tellError } from "../../lib/toast";
import { UndoButtons } from "../../parts/Labelling";
import { Photo } from "../../parts/Photo";
import { setEach } from "../../state/labelling";
import { arrived, change, labels, mayLabel, me, table, versions, type LabelChange } from "../../state/library";
import { nameOf } from "../../state/names";
import { groupsOf, restored, type Group } from "./groups";

/** Changes of before the page was opened, that were asked for. */
const earlier = signal<{ changes: readonly LabelChange[]; from: number } | null>(null);
const BATCH = 500;
const SHOWN = 8;

async function load(from: number): Promise<void> {
  const since = Math.max(0, from - BATCH);
  try {
    const told = await get<{ changes: LabelChange[] }>("/api/v1/labels/changes", { since, wait: 0 });
    earlier.value = { changes: [...(earlier.value?.changes ?? []), ...told.changes.filter((one) => one.number <= from)], from: since };
  } catch (error) {
    tellError(error);
    earlier.value ??= { changes: [], from: 0 };
  }
}

/** Where nobody needs a token nobody has a name. */
const whoOf = (by: string) => (by === "" ? "" : by === me.value?.name ? "you, " : `${by}, `);

export function History() {
  useEffect(() => {
    if (!earlier.value) void load(change.peek());
  }, []);
  const groups = useMemo(() => groupsOf([...arrived.value, ...(earlier.value?.changes ?? [])]), [arrived.value, earlier.value]);
  const knownOf = (key: string) => {
    const row = table.value?.rowOf.get(key);
    return row === undefined ? undefined : { label: labels.value[row] ?? null, version: versions.value[row] ?? 0 };
  };
  function restore(group: Group) {
    const wanted = restored(group, knownOf);
    const count = setEach(wanted);
    const left = new Set(group.changes.map((one) => one.key)).size - wanted.size;
    tell(`${count} ${count === 1 ? "photo is" : "photos are"} as before${left ? `; ${left} changed since ${left === 1 ? "stays" : "stay"} as ${left === 1 ? "it is" : "they are"}` : ""}`);
  }
  if (!earlier.value) return <p class="empty" role="status">Reading the history…</p>;
  const from = earlier.value.from;
  return (
    <div class="history">
      <div class="history-bar"><UndoButtons /><span class="faint small">Undo takes back your own last step; here any step can be taken back.</span></div>
      {!groups.length && <p class="empty">No label was set yet. What you and others set will stand here, the newest first.</p>}
      <ol class="history-list">
        {groups.map((group) => {
          const open = restored(group, knownOf).size;
          const before = new Set(group.changes.map((one) => one.before));
          return (
            <li key={group.changes[0]!.number} class="history-step">
              <div class="history-photos">
                {group.changes.slice(0, SHOWN).map((one) => {
                  const row = table.value?.rowOf.get(one.key);
                  return row === undefined ? null : <Photo key={one.number} media={table.value!.media[row]!} alt={one.key} />;
                })}
                {group.changes.length > SHOWN && <span class="history-more small">+{(group.changes.length - SHOWN).toLocaleString("en")}</span>}
              </div>
              <div class="history-words">
                <span><strong title={group.after ?? undefined}>{group.after === null ? "Label removed" : nameOf(group.after)}</strong>{group.changes.length > 1 && <span class="faint"> · {group.changes.length.toLocaleString("en")} photos</span>}</span>
                <span class="faint small">
                  {whoOf(group.by)}<time dateTime={group.at}>{when(group.at)}</time>
                  {before.size === 1 && !before.has(null) && <> · was {nameOf([...before][0]!)}</>}
                  {before.size > 1 && " · had other labels"}
                </span>
              </div>
              {open > 0
                ? <button class="button" disabled={!mayLabel.value} onClick={() => restore(group)}>Take back{open < group.changes.length ? ` (${open})` : ""}</button>
                : <span class="faint small history-since">changed since</span>}
            </li>
          );
        })}
      </ol>
      {from > 0 && <p class="row history-bar"><button class="button" onClick={() => void load(from)}>Earlier ones</button></p>}
    </div>
  );
}

// What labelling needs in every view: undo and redo, what waits to be sent, and photos that somebody else labelled meanwhile.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { useShortcuts } from "../lib/keys";
import { tell } from "../lib/toast";
import { canRedo, canUndo, conflicts, reached, redo, settle, undo, unsent } from "../state/labelling";
import { table, trouble } from "../state/library";
import { nameOf } from "../state/names";
import "../styles/labelbar.css";
import { Dialog } from "./Dialog";
import { Photo } from "./Photo";

const settling = signal(false);
const none = "no label";

export function Labelling() {
  useShortcuts([
    // With Shift some systems say "Z" and some "z"; with Caps Lock it is the other way round.
    { key: "Ctrl+z", what: "Undo the last labels", run: (event) => (event.shiftKey ? redo() : undo()), anywhere: true },
    { key: "Ctrl+Z", what: "Do them again", run: (event) => (event.shiftKey ? redo() : undo()), anywhere: true },
    { key: "Ctrl+y", what: "Do them again", run: () => redo(), anywhere: true },
  ]);
  const count = conflicts.value.length;
  const before = useRef(0);
  useEffect(() => {
    if (count > before.current) {
      const who = conflicts.value.at(-1)?.now.by || "Somebody else";
      tell(`${who} labelled ${count === 1 ? "a photo" : `${count} photos`} meanwhile; nothing was overwritten.`, "warn",
        { name: "Look", run: () => (settling.value = true) });
    }
    before.current = count;
  }, [count]);
  return (
    <>
      <div class="labelling-state">
        {(!reached.value || trouble.value !== null && table.value !== null) && (
          <span class="labelling-pill" role="status">
            {unsent.value === 0 ? "The service does not answer; trying again" : `${unsent.value} ${unsent.value === 1 ? "label waits" : "labels wait"} for the service`}
          </span>
        )}
        {count > 0 && <button class="button labelling-pill" onClick={() => (settling.value = true)}>{count} to settle</button>}
      </div>
      {settling.value && count > 0 && <Settle />}
    </>
  );
}

/** Undo and redo as buttons, for those without a keyboard. */
export function UndoButtons() {
  return (
    <>
      <button class="button button-plain" disabled={!canUndo.value} onClick={() => undo()} title="Undo (Ctrl + Z)">Undo</button>
      <button class="button button-plain" disabled={!canRedo.value} onClick={() => redo()} title="Redo (Ctrl + Shift + Z)">Redo</button>
    </>
  );
}

function Settle() {
  const list = conflicts.value;
  const keys = list.map((one) => one.key);
  function all(keep: "theirs" | "mine") {
    settle(keys, keep);
    settling.value = false;
  }
  return (
    <Dialog title="Labelled by somebody else meanwhile" onClose={() => (settling.value = false)}>
      <p class="faint small">Nobody's label is lost: now the others' labels stand. You can leave them, or set yours.</p>
      <ul class="settle-list">
        {list.slice(0, 50).map((one) => {
          const row = table.value?.rowOf.get(one.key);
          const media = row === undefined ? undefined : table.value?.media[row];
          return (
            <li key={one.key} class="settle-one">
              {media && <Photo media={media} alt={one.key} class="settle-photo" />}
              <div class="stack settle-words">
                <span><strong>{one.now.label === null ? none : nameOf(one.now.label)}</strong> <span class="faint small">set by {one.now.by || "somebody else"}</span></span>
                <span class="faint small">You wanted: {one.mine === null ? none : nameOf(one.mine)}</span>
                <div class="row">
                  <button class="button" onClick={() => settle([one.key], "theirs")}>Keep theirs</button>
                  <button class="button" onClick={() => settle([one.key], "mine")}>Set mine</button>
                </div>
              </div>
            </li>
          );
        })}
      </ul>
      {list.length > 50 && <p class="small faint">and {list.length - 50} more</p>}
      {list.length > 1 && (
        <div class="row">
          <button class="button button-main" onClick={() => all("theirs")}>Keep all theirs</button>
          <button class="button" onClick={() => all("mine")}>Set all mine</button>
        </div>
      )}
    </Dialog>
  );
}

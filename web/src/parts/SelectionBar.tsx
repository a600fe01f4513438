// What is chosen, wherever it was chosen: how many, some of them to look at, and what can be done with them.
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useShortcuts } from "../lib/keys";
import { mayLabel, selection, table } from "../state/library";
import "../styles/selection.css";
import { fileName } from "./Grid";
import { Icon } from "./Icon";
import { LabelBar } from "./LabelBar";
import { Photo } from "./Photo";

const most = 8;
/** A phone has no room for photos beside the bar: it is one line there, until one wants to label. */
const narrow = matchMedia("(max-width: 640px)");

/** `shown`: 1 for rows that the filter leaves; what is chosen besides is told, so that nobody labels unseen photos. */
export function SelectionBar(props: { shown: Uint8Array | null; onOpen: (row: number) => void; children?: ComponentChildren }) {
  const chosen = selection.value;
  const rows = useMemo(() => [...chosen], [chosen]);
  const columns = table.value;
  const [small, setSmall] = useState(narrow.matches);
  const [labelling, setLabelling] = useState(false);
  useEffect(() => {
    const changed = () => setSmall(narrow.matches);
    narrow.addEventListener("change", changed);
    return () => narrow.removeEventListener("change", changed);
  }, []);
  useEffect(() => {
    if (!rows.length) setLabelling(false);
  }, [rows.length === 0]);
  const byKey = useRef(false);
  const folded = small && !labelling && rows.length > 0 && mayLabel.value;
  useShortcuts(folded ? [{ key: "l", what: "Label: type a name", run: () => { byKey.current = true; setLabelling(true); } }] : [], [folded]);
  if (!rows.length || !columns) return null;
  const { shown } = props;
  const unseen = shown ? rows.filter((row) => !shown[row]) : [];
  const none = () => (selection.value = new Set());
  return (
    <section class="chosen" aria-label="Chosen photos">
      <div class="chosen-what">
        <strong class="chosen-count">{rows.length.toLocaleString("en")} chosen</strong>
        {unseen.length > 0 && (
          <button class="chosen-unseen" title="Take these away" onClick={() => (selection.value = new Set(rows.filter((row) => shown![row])))}>
            {unseen.length.toLocaleString("en")} not shown: leave out
          </button>
        )}
      </div>
      {!small && <ul class="chosen-some" aria-label="Some of the chosen photos">
        {rows.slice(-most).reverse().map((row) => (
          <li key={row}>
            <button onClick={() => props.onOpen(row)} aria-label={`Open ${columns.keys[row]}`} title={fileName(columns.keys[row]!)}><Photo media={columns.media[row]!} alt="" eager /></button>
          </li>
        ))}
      </ul>}
      {small && mayLabel.value && (
        <button class="button chosen-label" aria-expanded={labelling} onClick={() => { byKey.current = false; setLabelling(!labelling); }}><Icon name="tag" size={18} />Label<Icon name={labelling ? "down" : "up"} size={14} /></button>
      )}
      <div class="chosen-do">
        {!mayLabel.value ? <p class="small faint">Your token allows to look, not to label.</p> : (!small || labelling) && <LabelBar rows={rows} onDone={none} focus={byKey.current} />}
        {props.children}
      </div>
      <button class="button button-plain button-icon" aria-label="Choose nothing" title="Choose nothing (Escape)" onClick={none}><Icon name="close" /></button>
    </section>
  );
}

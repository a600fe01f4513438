// What is chosen, wherever it was chosen: how many, some of them to look at, and what can be done with them.
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { mayLabel, selection, table } from "../state/library";
import "../styles/selection.css";
import { fileName } from "./Grid";
import { Icon } from "./Icon";
import { LabelBar } from "./LabelBar";
import { Photo } from "./Photo";

const most = 8;

/** `shown`: 1 for rows that the filter leaves; what is chosen besides is told, so that nobody labels unseen photos. */
export function SelectionBar(props: { shown: Uint8Array | null; onOpen: (row: number) => void; children?: ComponentChildren }) {
  const chosen = selection.value;
  const rows = useMemo(() => [...chosen], [chosen]);
  const columns = table.value;
  if (!rows.length || !columns) return null;
  const { shown } = props;
  const unseen = shown ? rows.filter((row) => !shown[row]) : [];
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
      <ul class="chosen-some" aria-label="Some of the chosen photos">
        {rows.slice(-most).reverse().map((row) => (
          <li key={row}>
            <button onClick={() => props.onOpen(row)} aria-label={`Open ${columns.keys[row]}`} title={fileName(columns.keys[row]!)}><Photo media={columns.media[row]!} alt="" eager /></button>
          </li>
        ))}
      </ul>
      <div class="chosen-do">{mayLabel.value ? <LabelBar rows={rows} onDone={() => (selection.value = new Set())} /> : <p class="small faint">Your token allows to look, not to label.</p>}{props.children}</div>
      <button class="button button-plain button-icon" aria-label="Choose nothing" title="Choose nothing (Escape)" onClick={() => (selection.value = new Set())}><Icon name="close" /></button>
    </section>
  );
}

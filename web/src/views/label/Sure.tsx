// Many at once: photos that are guessed to be of one kind, the surest first; those beyond a bound are chosen beforehand.
import { signal } from "@preact/signals";
import { useEffect, useMemo, useState } from "preact/hooks";
import { useShortcuts } from "../../lib/keys";
import { byName } from "../../lib/names";
import { Empty } from "../../parts/Empty";
import { Grid, labelCaption } from "../../parts/Grid";
import { IconCheck } from "../../parts/labelIcons";
import { Progress } from "../../parts/Progress";
import { guesses, whyNone } from "../../state/guesses";
import { setLabels } from "../../state/labelling";
import { labels, mayLabel } from "../../state/library";
import { nameOf } from "../../state/names";
import { TooFew } from "./TooFew";
import { kindsOf, type Kind } from "./kinds";

const chosen = signal<ReadonlySet<number>>(new Set());
const bound = signal(0.9);

export function Sure() {
  const told = guesses.value;
  const kinds = useMemo(() => (told ? kindsOf(told, labels.value).sort((a, b) => byName(nameOf(a.label), nameOf(b.label))) : []), [told, labels.value]);
  const [name, setName] = useState<string | null>(null);
  const kind = kinds.find((one) => one.label === name) ?? surest(kinds, bound.value);
  const rows = kind?.rows ?? [];
  const sure = kind ? kind.rows.filter((_, index) => kind.probability[index]! >= bound.value) : [];
  useEffect(() => {
    chosen.value = new Set(mayLabel.value ? sure : []);
  }, [kind?.label, bound.value, told?.change, mayLabel.value]);
  const picked = rows.filter((row) => chosen.value.has(row));
  function accept() {
    if (!kind || !picked.length || !mayLabel.value) return;
    setLabels(picked, kind.label);
    chosen.value = new Set();
    setName(null);
  }
  useShortcuts([{ key: "Ctrl+Enter", what: "Label all that are chosen", run: accept, always: true }], [kind?.label, picked.length]);
  if (!told) return <Progress working={null} what="Looking for photos that are surely of one kind" />;
  if (!kind) return whyNone() !== null ? <TooFew /> : <Empty icon="check" title="No photo is left to label at once">Every photo has a label, or looks like no kind that has one.</Empty>;
  return (
    <div class="sure">
      <nav class="sure-kinds" aria-label="Kinds">
        <ul>
          {kinds.map((one) => (
            <li key={one.label}>
              <button class="sure-kind" aria-pressed={one === kind} onClick={() => setName(one.label)}>
                <span class="choice-name" title={one.label}>{nameOf(one.label)}</span>
                <span class="small">{one.probability.filter((p) => p >= bound.value).length || <span class="faint">0</span>}<span class="faint"> / {one.rows.length}</span></span>
              </button>
            </li>
          ))}
        </ul>
      </nav>
      <label class="sure-select">
        <span class="hidden-text">Kind</span>
        <select class="field" value={kind.label} onChange={(event) => setName(event.currentTarget.value)}>
          {kinds.map((one) => <option key={one.label} value={one.label}>{nameOf(one.label)} ({one.rows.length.toLocaleString("en")})</option>)}
        </select>
      </label>
      <div class="sure-main">
        <div class="sure-bar">
          {mayLabel.value ? (
            <>
              <button class="button button-main" disabled={!picked.length} onClick={accept}>
                <IconCheck />{picked.length ? `${picked.length.toLocaleString("en")} ${picked.length === 1 ? "is" : "are"} ${nameOf(kind.label)}` : "None is chosen"}
              </button>
              <label class="sure-bound small">
                <span>Choose from {Math.round(100 * bound.value)} %</span>
                <input type="range" min="50" max="99" value={Math.round(100 * bound.value)} onInput={(event) => (bound.value = Number(event.currentTarget.value) / 100)} />
              </label>
              <span class="faint small sure-help">Tap a photo to take it out or in. The surest stand first.</span>
            </>
          ) : <p class="faint small">Your token allows to look, not to label. The surest stand first.</p>}
        </div>
        <div class="sure-grid">
          <Grid rows={rows} of={kind.label} name={`Photos that are probably ${nameOf(kind.label)}`} chosen={chosen} {...(mayLabel.value ? { click: "choose" } : { choose: "none" })}
            caption={(row) => labelCaption(kind.label, told.probability[row] ?? 0)} />
        </div>
      </div>
    </div>
  );
}

/** The kind of which most photos are sure. */
function surest(kinds: readonly Kind[], from: number): Kind | undefined {
  let best: Kind | undefined;
  let most = -1;
  for (const one of kinds) {
    const count = one.probability.filter((p) => p >= from).length;
    if (count > most) [best, most] = [one, count];
  }
  return best;
}

// How far labelling is: labelled photos, what they speak for, and how often the guesses are probably right.
import { signal } from "@preact/signals";
import { percent, plural } from "../../lib/names";
import { Dialog } from "../../parts/Dialog";
import { IconDownload } from "../../parts/labelIcons";
import { guesses, guessing, labelled, session, whyNone } from "../../state/guesses";
import { table } from "../../state/library";

const open = signal(false);
const saving = signal(false);

export function Measures() {
  const total = table.value?.keys.length ?? 0;
  const told = guesses.value;
  const accuracy = told?.accuracy;
  return (
    <div class="measures" aria-busy={guessing.value}>
      <div class="measure">
        <span class="measure-name">Labelled</span>
        <strong>{labelled.value.toLocaleString("en")}</strong> <span class="faint">of {total.toLocaleString("en")}</span>
      </div>
      {told && told.classes.length > 0 && (
        <div class="measure measure-wide" title="Share of all photos that look much like a labelled one">
          <span class="measure-name">Covered</span>{told.coverage === null ? <span class="faint">…</span> : <strong>{percent(told.coverage)}</strong>}
        </div>
      )}
      <button class="measure measure-button" onClick={() => (open.value = true)} title="How this was measured" aria-haspopup="dialog">
        <span class="measure-name">Guesses right</span>
        {accuracy
          ? <><strong>{percent(accuracy.estimate)}</strong> <span class="faint">{percent(accuracy.low).replace(" %", "")}–{percent(accuracy.high)}</span><Spark /></>
          : <span class="faint">{told ? "not known yet" : "…"}</span>}
      </button>
      <button class="button button-plain measure-wide" aria-haspopup="dialog" onClick={() => (saving.value = true)}><IconDownload />Download</button>
      {saving.value && (
        <Dialog title="Download" onClose={() => (saving.value = false)}>
          <div class="stack measure-words">
            <a class="button button-main" href="/api/v1/labels.csv" download="labels.csv"><IconDownload />Labels</a>
            <p class="small faint">What people have set: a line for each of the {plural(labelled.value, "labelled photo")} (labels.csv).</p>
            <a class="button" href="/api/v1/classified.csv" download="classified.csv"><IconDownload />Guesses</a>
            <p class="small faint">A guess for every photo, with how likely it is (classified.csv). It takes labels of two kinds.</p>
          </div>
        </Dialog>
      )}
      {open.value && (
        <Dialog title="How often the guesses are right" onClose={() => (open.value = false)}>
          <div class="stack measure-words">
            {accuracy ? (
              <>
                <p>About <strong>{percent(accuracy.estimate)}</strong> of the guesses are right; with 95 % confidence between {percent(accuracy.low)} and {percent(accuracy.high)}.</p>
                <p>Measured on {accuracy.photos.toLocaleString("en")} labelled photos: {accuracy.how}.</p>
                <p class="faint small">This holds for photos like those that were labelled. Photos that were chosen because they are hard make it look lower than it is; kinds of which no photo is labelled make it look higher.</p>
              </>
            ) : <p>{whyNone() ?? "There are too few labels to measure it. A few photos of each of a few kinds are enough."}</p>}
            {told?.coverage != null && <p class="small">{percent(told.coverage)} of all photos are covered: they look much like a labelled one. The others are where guesses go wrong most.</p>}
            <p class="measure-also"><button class="button" onClick={() => { open.value = false; saving.value = true; }}><IconDownload />Download…</button></p>
          </div>
        </Dialog>
      )}
    </div>
  );
}

const W = 72;
const H = 22;
/** The estimate and its interval over this visit. */
function Spark() {
  const known = session.value.filter((one) => one.accuracy !== null).slice(-80);
  if (known.length < 2) return null;
  const low = Math.min(...known.map((one) => one.accuracy!.low));
  const high = Math.max(...known.map((one) => one.accuracy!.high));
  const x = (index: number) => (1 + (index / (known.length - 1)) * (W - 4)).toFixed(1);
  const y = (value: number) => (H - 2 - ((value - low) / (high - low || 1)) * (H - 4)).toFixed(1);
  const upper = known.map((one, index) => `${x(index)},${y(one.accuracy!.high)}`);
  const lower = known.map((one, index) => `${x(index)},${y(one.accuracy!.low)}`).reverse();
  return (
    <svg class="spark" viewBox={`0 0 ${W} ${H}`} width={W} height={H} role="img" aria-label="Over this visit">
      <polygon class="spark-band" points={[...upper, ...lower].join(" ")} />
      <polyline class="spark-line" points={known.map((one, index) => `${x(index)},${y(one.accuracy!.estimate)}`).join(" ")} />
      <circle class="spark-end" cx={x(known.length - 1)} cy={y(known.at(-1)!.accuracy!.estimate)} r="2" />
    </svg>
  );
}

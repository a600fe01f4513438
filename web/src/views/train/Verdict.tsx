// Whether training helped: the word, the numbers behind it, what ships, what to try.
import { useState } from "preact/hooks";
import type { Ending, HardPair, Measured } from "../../state/runs";
import { nameOf } from "../../state/names";
import { longVerdict, signed, Told, tone } from "./words";

const FIRST = 6;

export function Verdict({ run, ending }: { run: string; ending: Ending }) {
  const measured = ending.measures.filter((one) => one.gain !== null);
  const shipped = ending.shipped === "start" ? "the starting encoder" : `the ${ending.shipped === "trained" ? "trained encoder" : ending.shipped}`;
  return (
    <>
      <section class={`verdict verdict-${tone(ending.verdict)}`} aria-label="Verdict">
        <p class="verdict-word">{longVerdict(ending.verdict, ending.kind)}</p>
        <p class="verdict-sentence">{ending.sentence}</p>
        <p class="faint">{ending.meaning}</p>
        <p><strong>What you get:</strong> {shipped}{ending.post_processing && <span class="faint"> · with {ending.post_processing}</span>}</p>
      </section>
      {measured.length > 0 && (
        <section class="run-section">
          <h3>{ending.kind === "start" ? "Start as it is, and with post-processing" : "Start beside trained"}</h3>
          <Measures measures={measured} kind={ending.kind} />
          <p class="faint small">{ending.decision}</p>
          {ending.weights && <p class="faint small">{ending.weights}</p>}
        </section>
      )}
      {ending.advice.length > 0 && (
        <section class="run-section">
          <h3>What to try</h3>
          <ul class="run-advice">{ending.advice.map((text) => <li key={text}><Told text={text} /></li>)}</ul>
        </section>
      )}
      {ending.pairs.length > 0 && <Hard run={run} pairs={ending.pairs} />}
    </>
  );
}

/** An end of an interval that is near zero still shows on which side of it. */
const digits = (value: number) => (value !== 0 && Math.abs(value) < 0.05 ? 2 : 1);

const W = 440;
const H = 28;
function Measures({ measures, kind }: { measures: readonly Measured[]; kind: string }) {
  const [all, setAll] = useState(false);
  const shown = all ? measures : measures.slice(0, FIRST);
  const reach = Math.max(1, ...shown.map((one) => Math.max(Math.abs(one.low ?? one.gain!), Math.abs(one.high ?? one.gain!)))) * 1.08;
  const x = (value: number) => W / 2 + (value / reach) * (W / 2);
  return (
    <>
      <table class="measures-table">
        <thead>
          <tr><th scope="col">Measure</th><th scope="col">Start</th><th scope="col">{kind === "start" ? "Processed" : "Trained"}</th><th scope="col">Gain, 95 % interval</th><th scope="col" class="measures-plot"><span class="hidden-text">Drawn</span></th></tr>
        </thead>
        <tbody>
          {shown.map((one) => {
            const sure = one.low !== null && one.high !== null && (one.low > 0 || one.high < 0);
            return (
              <tr key={one.name} title={one.explanation}>
                <th scope="row">{one.label}</th>
                <td>{one.start?.toFixed(1) ?? "–"}</td>
                <td>{one.trained?.toFixed(1) ?? "–"}</td>
                <td class={sure ? (one.gain! > 0 ? "gain-good" : "gain-bad") : ""}>
                  <strong>{signed(one.gain!)}</strong>{one.low !== null && one.high !== null && <span class="faint"> {signed(one.low, digits(one.low))} to {signed(one.high, digits(one.high))}</span>}
                </td>
                <td class="measures-plot">
                  <svg viewBox={`0 0 ${W} ${H}`} height={H} aria-hidden="true" class={sure ? (one.gain! > 0 ? "plot-good" : "plot-bad") : "plot-open"}>
                    <line class="plot-zero" x1={W / 2} x2={W / 2} y1="2" y2={H - 2} />
                    {one.low !== null && one.high !== null && <line class="plot-range" x1={x(one.low)} x2={x(one.high)} y1={H / 2} y2={H / 2} />}
                    <circle class="plot-dot" cx={x(one.gain!)} cy={H / 2} r="4.5" />
                  </svg>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {measures.length > FIRST && <p><button class="button" onClick={() => setAll(!all)}>{all ? "Fewer" : `All ${measures.length} measures`}</button></p>}
    </>
  );
}

const FEW = 4;
function Hard({ run, pairs }: { run: string; pairs: readonly HardPair[] }) {
  const [all, setAll] = useState(false);
  const photo = (name: string) => <img key={name} src={`/media/runs/${run}/photos/${name}`} alt="" loading="lazy" width="64" height="64" />;
  return (
    <section class="run-section">
      <h3>Look-alikes that stay hard</h3>
      <p class="faint small">Share of the photos of two kinds whose nearest photo is of the other kind.</p>
      <ul class="hard">
        {(all ? pairs : pairs.slice(0, FEW)).map((pair) => (
          <li key={`${pair.first}|${pair.second}`} class="hard-pair">
            <div class="hard-side"><strong title={pair.first}>{nameOf(pair.first)}</strong><div class="hard-photos">{pair.photos_first.map(photo)}</div></div>
            <div class="hard-side"><strong title={pair.second}>{nameOf(pair.second)}</strong><div class="hard-photos">{pair.photos_second.map(photo)}</div></div>
            <p class="small">{pair.start !== null && <>{pair.start.toFixed(0)} % at the start</>}{pair.start !== null && pair.trained !== null && ", "}{pair.trained !== null && <strong>{pair.trained.toFixed(0)} % now</strong>}</p>
          </li>
        ))}
      </ul>
      {pairs.length > FEW && <p><button class="button" onClick={() => setAll(!all)}>{all ? "Fewer" : `All ${pairs.length} pairs`}</button></p>}
    </section>
  );
}

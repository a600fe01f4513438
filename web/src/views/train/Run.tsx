// One run: how far it is, the verdict when it is there, and its curves.
import { useEffect } from "preact/hooks";
import { go } from "../../lib/router";
import { IconDownload, IconLeft, IconOpen } from "../../parts/labelIcons";
import { duration } from "../../state/runlog";
import { details, followRun, log, runTrouble, type RunDetails } from "../../state/runs";
import { Curves } from "./Curves";
import { Verdict } from "./Verdict";

export function Run({ run }: { run: string }) {
  useEffect(() => followRun(run), [run]);
  const told = details.value?.card.run === run ? details.value : null;
  const lines = log.value.run === run ? log.value.lines : [];
  return (
    <article class="run" aria-busy={!told}>
      <button class="button button-plain run-back" onClick={() => go("train")}><IconLeft />All runs</button>
      {!told && <p class="empty" role="status">{runTrouble.value ?? "Reading the run…"}</p>}
      {told && (
        <>
          <header class="run-head">
            <div>
              <h2 class="run-title">{told.card.name}</h2>
              <p class="faint small">{about(told)}</p>
            </div>
            {told.ending && (
              <div class="row">
                <a class="button" href={`/media/runs/${run}/report`} target="_blank" rel="noopener"><IconOpen />Open the report</a>
                <a class="button" href={`/media/runs/${run}/report?download=true`} download="report.html"><IconDownload />Download</a>
              </div>
            )}
          </header>
          {told.card.state === "running" && <Going told={told} />}
          {told.card.state === "stopped" && (
            <p class="run-note">This run stopped{told.card.epoch !== null && told.card.epochs ? ` at epoch ${Number(told.card.epoch.toFixed(1))} of ${told.card.epochs}` : " before its first step"}. Nothing is lost: the same <code>fieldmark train</code> command continues from its last checkpoint.</p>
          )}
          {told.card.state === "finished" && !told.ending && <p class="run-note">{told.card.sentence ?? "This run is finished."} Its report cannot be read by this version; <code>fieldmark report</code> on the run says why.</p>}
          {told.ending && <Verdict run={run} ending={told.ending} />}
          <Curves curves={told.curves} lines={lines} until={told.card.epochs ?? told.card.epoch ?? 1} running={told.card.state === "running"} />
          {told.ending && told.ending.notes.length > 0 && (
            <section class="run-section"><h3>Notes</h3><ul class="run-notes small">{told.ending.notes.map((note) => <li key={note}>{note}</li>)}</ul></section>
          )}
        </>
      )}
    </article>
  );
}

function about({ card, ending }: RunDetails): string {
  const facts = ending?.facts;
  return [
    card.recipe && `recipe ${card.recipe}`,
    card.photos !== null && `trained on ${card.photos.toLocaleString("en")} photos`,
    facts?.test && `tested on ${facts.test.toLocaleString("en")} of ${facts.classes ?? "?"} kinds`,
    facts?.size && `${facts.size} px`,
    ending?.seconds && `took ${duration(ending.seconds)}`,
    card.started && `started ${new Date(card.started).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" })}`,
  ].filter(Boolean).join(" · ");
}

function Going({ told }: { told: RunDetails }) {
  const { card, pace } = told;
  const share = card.epochs ? Math.min(1, (card.epoch ?? 0) / card.epochs) : 0;
  return (
    <section class="going" aria-label="How far it is">
      <div class="row spread">
        <strong class="going-epoch">
          {pace.measuring ? "Measuring both encoders" : card.epoch === null ? "Preparing the photos" : `Epoch ${card.epoch.toFixed(1)} of ${card.epochs ?? "?"}`}
        </strong>
        <span class="faint">
          {pace.measuring ? "All epochs are done; the verdict comes next."
            : [pace.eta_seconds !== null && `about ${duration(pace.eta_seconds)} left, then the measuring`, pace.images_per_second && `${Math.round(pace.images_per_second)} photos a second`].filter(Boolean).join(" · ")}
        </span>
      </div>
      <progress class="run-progress going-bar" value={share} max={1} aria-label="Epochs done" />
      <p class="small faint">Whether training helps is not known before the end: start and result are then measured side by side. Until then the curves only show whether something goes wrong.</p>
    </section>
  );
}

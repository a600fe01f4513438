// Training: which runs there are, how one goes, and whether it helped.
import { useEffect } from "preact/hooks";
import { follow, query } from "../lib/router";
import { Empty } from "../parts/Empty";
import { Progress } from "../parts/Progress";
import { duration } from "../state/runlog";
import { followRuns, runs, runTrouble, type RunCard } from "../state/runs";
import "../styles/train.css";
import { Run } from "./train/Run";
import { shortVerdict, tone } from "./train/words";

export function Train() {
  useEffect(followRuns, []);
  const asked = query.value.get("run");
  const list = runs.value;
  const shown = asked ?? list?.[0]?.run ?? null;
  if (!list) return runTrouble.value ? <Empty icon="warning" alert title="The runs cannot be shown">{runTrouble.value}</Empty> : <Progress working={null} what="Looking for training runs" />;
  if (!list.length) {
    return (
      <Empty icon="feather" title="No training runs here yet">
        <p>Train with <code>fieldmark train photos/ --out runs/first</code>, and name the folder when you start the service: <code>fieldmark serve … --runs runs</code>. You can watch a run while it goes.</p>
      </Empty>
    );
  }
  return (
    <div class={`train ${asked ? "train-one" : ""}`}>
      <h1 class="hidden-text">Train</h1>
      <nav class="train-list" aria-label="Runs">
        <h2 class="train-title">Training runs</h2>
        {runTrouble.value && <p class="train-trouble small" role="alert">{runTrouble.value}</p>}
        <ul>
          {list.map((card) => (
            <li key={card.run}>
              <a class="run-card" href={`/train?run=${card.run}`} onClick={follow} aria-current={card.run === shown ? "page" : undefined}>
                <span class="run-name">{card.name.split("/").map((part, index) => <span key={index}>{index > 0 && <>/<wbr /></>}<span class="run-part">{part}</span></span>)}</span>
                <RunState card={card} />
                <span class="run-about small faint">
                  {[card.recipe, card.photos === null ? "" : `${card.photos.toLocaleString("en")} photos`, age(card)].filter(Boolean).join(" · ")}
                </span>
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <div class="train-main" role="region" aria-label="The run" tabIndex={0}>{shown && <Run key={shown} run={shown} />}</div>
    </div>
  );
}

function RunState({ card }: { card: RunCard }) {
  if (card.state === "running") {
    const share = card.epochs ? Math.min(1, (card.epoch ?? 0) / card.epochs) : 0;
    return (
      <span class="run-state small">
        <span class="run-dot" aria-hidden="true" />Running
        <progress class="run-progress" value={share} max={1} aria-label="Epochs done" />
      </span>
    );
  }
  if (card.state === "finished") return <span class={`run-state small verdict-${tone(card.verdict)}`}>{shortVerdict(card.verdict)}</span>;
  return <span class="run-state small faint">{card.state === "failed" ? "Failed" : "Stopped"}{card.epoch !== null && card.epochs ? ` at epoch ${Number(card.epoch.toFixed(1))} of ${card.epochs}` : ""}</span>;
}

function age(card: RunCard): string {
  const seconds = (Date.now() - Date.parse(card.updated)) / 1000;
  if (seconds < 90) return "just now";
  return `${seconds < 3600 || seconds > 48 * 3600 ? duration(seconds) : `${Math.floor(seconds / 3600)} h`} ago`;
}

// Training runs: the list, one run, and its log, followed while it runs.
import { signal } from "@preact/signals";
import { ApiError, get } from "../lib/api";
import { tellError } from "../lib/toast";
import { joined, type LogPart, type LogLine } from "./runlog";

export interface RunCard {
  run: string;
  name: string;
  state: "running" | "finished" | "stopped" | "failed";
  recipe: string;
  photos: number | null;
  epoch: number | null;
  epochs: number | null;
  verdict: string | null;
  sentence: string | null;
  started: string | null;
  updated: string;
}
export interface Curve {
  name: string;
  label: string;
  explanation: string;
  better: string;
  low: number | null;
  high: number | null;
  absolute_low: number | null;
  share: boolean;
}
export interface Measured {
  name: string;
  label: string;
  explanation: string;
  unit: string;
  start: number | null;
  trained: number | null;
  gain: number | null;
  low: number | null;
  high: number | null;
}
export interface HardPair {
  first: string;
  second: string;
  start: number | null;
  trained: number | null;
  photos_first: string[];
  photos_second: string[];
}
export interface Ending {
  title: string;
  kind: string;
  verdict: string;
  sentence: string;
  meaning: string;
  decision: string;
  shipped: string;
  measures: Measured[];
  post_processing: string;
  facts: { photos?: number | null; train?: number | null; test?: number | null; classes?: number | null; size?: number | null; transductive?: boolean };
  weights: string;
  advice: string[];
  notes: string[];
  pairs: HardPair[];
  seconds: number | null;
}
export interface RunDetails {
  card: RunCard;
  pace: { images_per_second: number | null; eta_seconds: number | null; measuring: boolean };
  curves: Curve[];
  ending: Ending | null;
}

export const runs = signal<readonly RunCard[] | null>(null);
export const details = signal<RunDetails | null>(null);
export const log = signal<{ run: string; lines: readonly LogLine[]; complete: boolean }>({ run: "", lines: [], complete: false });
/** Why there is no answer, in the service's words. */
export const runTrouble = signal<string | null>(null);

const LIST_MS = 5_000;
const LIVE_MS = 2_000;

/** Again and again until it is stopped; not while the page is not looked at. */
function repeat(work: (signal: AbortSignal) => Promise<number | null>): () => void {
  const own = new AbortController();
  let timer = 0;
  async function turn() {
    let next: number | null = LIST_MS;
    try {
      if (!document.hidden) next = await work(own.signal);
      runTrouble.value = null;
    } catch (error) {
      if (own.signal.aborted) return;
      if (error instanceof ApiError) runTrouble.value = error.problem.detail;
      else tellError(error);
    }
    if (next !== null && !own.signal.aborted) timer = window.setTimeout(() => void turn(), next);
  }
  void turn();
  return () => {
    own.abort();
    clearTimeout(timer);
  };
}

export const followRuns = (): (() => void) => repeat(async (signal) => {
  runs.value = await get<RunCard[]>("/api/v1/runs", undefined, signal);
  return LIST_MS;
});

export function followRun(run: string): () => void {
  if (details.value?.card.run !== run) details.value = null;
  if (log.value.run !== run) log.value = { run, lines: [], complete: false };
  let next = log.value.lines.length;
  return repeat(async (signal) => {
    const told = await get<RunDetails>(`/api/v1/runs/${run}`, undefined, signal);
    for (;;) {
      const part = await get<LogPart>(`/api/v1/runs/${run}/metrics`, { since_line: next }, signal);
      log.value = { run, lines: joined(log.value.lines, part), complete: !part.more };
      next = part.next;
      if (!part.more) break;
    }
    details.value = told;
    // A run that stands still may be continued at any time.
    return told.card.state === "running" ? LIVE_MS : 2 * LIST_MS;
  });
}

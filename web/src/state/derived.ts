// Answers that the service computes once for a snapshot: asked for when a view needs them, kept while they hold.
import { effect, signal, type ReadonlySignal } from "@preact/signals";
import { ApiError, wait, type Working } from "../lib/api";
import { loadTable, table } from "./library";

export interface Derived<T> {
  /** null until it is there. It stays while a newer one is computed, if it is of the same snapshot. */
  value: ReadonlySignal<T | null>;
  working: ReadonlySignal<Working | null>;
  error: ReadonlySignal<string | null>;
  /** Ask for it, unless that was done; `query` that differs from the last one asks anew. */
  need(query?: Record<string, unknown>): void;
  /** Ask again after an error. */
  again(): void;
}

const laterMs = 2500;
/** Photos that keep changing are not asked about without a pause. */
const goneMs = 500;

/** `final` tells answers that will not become better; others are shown and asked for again. */
export function derived<T>(path: string, final: (answer: T) => boolean = () => true): Derived<T> {
  const value = signal<T | null>(null);
  const working = signal<Working | null>(null);
  const error = signal<string | null>(null);
  let asked = "";
  let query: Record<string, unknown> = {};
  let stop = new AbortController();

  async function ask(): Promise<void> {
    stop.abort();
    const mine = (stop = new AbortController());
    error.value = null;
    try {
      for (;;) {
        const answer = await wait<T>(path, { ...query, snapshot: table.peek()!.snapshot }, (told) => {
          if (mine === stop) working.value = told;
        }, mine.signal);
        if (mine !== stop) return;
        value.value = answer;
        if (final(answer)) break;
        await new Promise((resolve) => setTimeout(resolve, laterMs));
        if (mine !== stop) return;
      }
      working.value = null;
    } catch (problem) {
      if (mine !== stop) return;
      working.value = null;
      asked = "";
      // The photos changed meanwhile: with the newer table the effect below asks again.
      if (problem instanceof ApiError && problem.code === "snapshot_gone") {
        await new Promise((resolve) => setTimeout(resolve, goneMs));
        await loadTable();
      } else error.value = problem instanceof ApiError ? problem.problem.detail : String(problem);
    }
  }
  let wanted = false;
  function need(told: Record<string, unknown> = query): void {
    wanted = true;
    const snapshot = table.peek()?.snapshot;
    const name = `${snapshot} ${JSON.stringify(told)}`;
    if (!snapshot || name === asked) return;
    if (!asked.startsWith(`${snapshot} `)) value.value = null;
    asked = name;
    query = told;
    void ask();
  }
  effect(() => {
    if (table.value && wanted) need();
  });
  return { value, working, error, need, again: () => { asked = ""; need(); } };
}

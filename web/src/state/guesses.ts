// What the service takes each photo for, after the labels that there are: asked for again when labels change.
import { effect, signal } from "@preact/signals";
import { ApiError, wait } from "../lib/api";
import { change, table } from "./library";

export interface Guesses {
  change: number;
  snapshot: string;
  classes: string[];
  guess: number[];
  probability: number[];
  second: number[];
  second_probability: number[];
  unknown: number[] | null;
  set_size: number[] | null;
  accuracy: { estimate: number; low: number; high: number; photos: number; how: string } | null;
  coverage: number;
  seconds: number;
  /** Why there are none. */
  why?: string;
}

export const guesses = signal<Guesses | null>(null);
/** Why there are no guesses, in the service's words. */
export const guessesTrouble = signal<string | null>(null);

export interface Guess {
  label: string;
  probability: number;
  unknown: boolean;
}
/** null where there is none. */
export function guessOf(row: number): Guess | null {
  const all = guesses.value;
  const label = all?.classes[all.guess[row] ?? -1];
  if (!all || label === undefined || all.snapshot !== table.value?.snapshot) return null;
  return { label, probability: all.probability[row]!, unknown: all.unknown?.[row] === 1 };
}

const patienceMs = 150;
let stop = new AbortController();
effect(() => {
  const number = change.value;
  if (!table.value) return;
  stop.abort();
  const mine = (stop = new AbortController());
  setTimeout(async () => {
    if (mine.signal.aborted) return;
    try {
      const told = await wait<Guesses>("/api/v1/guesses", { change: number }, undefined, mine.signal);
      if (mine.signal.aborted) return;
      guesses.value = told;
      guessesTrouble.value = told.why ?? null;
    } catch (error) {
      if (!mine.signal.aborted) guessesTrouble.value = error instanceof ApiError ? error.problem.detail : String(error);
    }
  }, patienceMs);
});

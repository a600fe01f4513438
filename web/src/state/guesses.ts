// What the photos seem to be, by the labels as they are now: asked anew after each change, the newest answer wins.
import { effect, signal, computed } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, wait } from "../lib/api";
import { tellError } from "../lib/toast";
import { sentence } from "../lib/names";
import { acknowledged } from "./labelling";
import { change, counts, labels, table } from "./library";

export interface Accuracy {
  estimate: number;
  low: number;
  high: number;
  photos: number;
  how: string;
}
/** Columns in the order of the table. */
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
  accuracy: Accuracy | null;
  /** Share of the photos that look much like a labelled one; null while it is not known. */
  coverage: number | null;
  seconds: number;
  /** False while better guesses of the same labels are being made. */
  final: boolean;
  /** Why there are none yet. */
  why?: string | null;
}
export interface Guess {
  label: string;
  probability: number;
}
export interface Moment {
  labelled: number;
  accuracy: Accuracy | null;
}

export const guesses = signal<Guesses | null>(null);
/** A newer answer is on its way. */
export const guessing = signal(false);
/** How labels and accuracy came along since the page was opened. */
export const session = signal<readonly Moment[]>([]);
export const labelled = computed(() => labels.value.reduce((sum, one) => sum + (one === null ? 0 : 1), 0));

const CALM_MS = 250;
const AGAIN_MS = 3_000;
/** What is covered is worked out after the guesses, and so is the best way of guessing at first: they are asked for again so often. */
const COVER_TRIES = 6;
const FINAL_TRIES = 60;
const KEPT_MOMENTS = 400;
const users = signal(0);
let asked: AbortController | null = null;
let timer = 0;
let coverTries = 0;

/** Keep the guesses fresh while a view is open that shows them. */
export function useGuesses(): void {
  useEffect(() => {
    users.value += 1;
    return () => {
      users.value -= 1;
    };
  }, []);
}

effect(() => {
  const newest = Math.max(change.value, acknowledged.value);
  const snapshot = table.value?.snapshot;
  if (!users.value || !snapshot) return;
  if (guesses.peek()?.change === newest && guesses.peek()?.snapshot === snapshot) return;
  clearTimeout(timer);
  guessing.value = true;
  coverTries = 0;
  timer = window.setTimeout(() => void ask(newest), guesses.peek() ? CALM_MS : 0);
});

async function ask(newest: number): Promise<void> {
  asked?.abort();
  const own = new AbortController();
  asked = own;
  try {
    const wasFinal = guesses.peek()?.final ?? true;
    const told = await wait<Guesses>("/api/v1/guesses", { change: newest }, undefined, own.signal);
    if (asked !== own) return;
    // Of other photos than the table's: the table is being loaded again, and asks anew.
    if (told.snapshot === table.value?.snapshot) guesses.value = told;
    if (told.final && !wasFinal) coverTries = 0;
    if (told.final && coverTries === 0) session.value = [...session.value, { labelled: labelled.value, accuracy: told.accuracy }].slice(-KEPT_MOMENTS);
    if (told.classes.length && (told.final ? told.coverage === null && coverTries < COVER_TRIES : coverTries < FINAL_TRIES)) {
      coverTries += 1;
      timer = window.setTimeout(() => void ask(newest), AGAIN_MS * Math.min(coverTries, COVER_TRIES));
    }
  } catch (error) {
    if (asked !== own) return;
    // While the service is away the shell says so; the guesses come when it is back.
    if (error instanceof ApiError && error.problem.status === 0) timer = window.setTimeout(() => void ask(newest), AGAIN_MS);
    else tellError(error);
  } finally {
    if (asked === own) guessing.value = false;
  }
}

/** Why there are no guesses, in words; null where there are some. */
export function whyNone(): string | null {
  if (counts.value.size < 2) return "Label a few photos of two kinds or more; then every other photo gets a guess.";
  const why = guesses.value?.why;
  return why ? sentence(why) : null;
}

/** The two most likely labels of a photo; none while nothing is known. */
export function guessesOf(row: number): Guess[] {
  const told = guesses.value;
  if (!told?.classes.length) return [];
  const pairs: [number | undefined, number | undefined][] = [
    [told.guess[row], told.probability[row]],
    [told.second[row], told.second_probability[row]],
  ];
  return pairs.flatMap(([place, probability]) => {
    const label = place === undefined || place < 0 ? undefined : told.classes[place];
    return label === undefined || probability === undefined ? [] : [{ label, probability }];
  });
}

export const isUnknown = (row: number): boolean => guesses.value?.unknown?.[row] === 1;

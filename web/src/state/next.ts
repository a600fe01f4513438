// The queue of photos that are worth a label most, with what they are to be compared with.
import { computed, signal } from "@preact/signals";
import { mediaUrl, sendJson, wait } from "../lib/api";
import { tellError } from "../lib/toast";
import { guessesOf, type Guess } from "./guesses";
import { labels, table } from "./library";

interface Told {
  change: number;
  covered: number;
  photos: { key: string; media: string; guess: string | null; probability: number | null; gain: number }[];
}
/** One label that a photo may get, and labelled photos that look like it. */
export interface Choice {
  label: string;
  /** Not there where only look-alikes speak for it. */
  probability?: number;
  rows: number[];
}

/** Rows that wait, the first is shown. */
export const queue = signal<readonly number[]>([]);
/** The service has nothing more to ask. */
export const exhausted = signal(false);
export const loading = signal(false);
const skipped = signal<readonly number[]>([]);

const AHEAD = 20;
const LOW = 8;
/** Skipped photos that are told to the service; an address has no room for all. */
const TOLD = 40;
const CHOICES = 6;
const EXAMPLES = 3;

export async function fill(): Promise<void> {
  const held = table.value;
  if (!held || loading.value || (queue.value.length >= LOW && queue.value.every(isOpen))) return;
  loading.value = true;
  try {
    const told = await wait<Told>("/api/v1/next", { count: AHEAD, skip: skipped.value.slice(-TOLD).map((row) => held.keys[row]) });
    const kept = queue.value.filter(isOpen);
    const passed = new Set([...skipped.value, ...kept]);
    const fresh = told.photos.flatMap((one) => held.rowOf.get(one.key) ?? []).filter((row) => isOpen(row) && !passed.has(row));
    queue.value = [...kept, ...fresh];
    exhausted.value = queue.value.length === 0;
    preload(queue.value.slice(0, 3));
  } catch (error) {
    tellError(error);
    exhausted.value = queue.value.length === 0;
  } finally {
    loading.value = false;
  }
}

const isOpen = (row: number) => labels.value[row] === null || labels.value[row] === undefined;

/** The first photo is done with: labelled, or put aside for this visit. */
export function pass(row: number, aside: boolean): void {
  if (aside) skipped.value = [...skipped.value.filter((one) => one !== row), row];
  queue.value = queue.value.filter((one) => one !== row);
  preload(queue.value.slice(0, 3));
  if (queue.value.length < LOW) void fill();
}
export const hasSkipped = computed(() => skipped.value.some(isOpen));
/** The photos that were put aside come again. */
export function showSkipped(): void {
  skipped.value = [];
  exhausted.value = false;
  void fill();
}
/** Look at a photo again. */
export function back(row: number): void {
  skipped.value = skipped.value.filter((one) => one !== row);
  queue.value = [row, ...queue.value.filter((one) => one !== row)];
}

/** Large enough for the screen it is shown on. */
export const stageSize = (): "medium" | "large" => (innerWidth * devicePixelRatio > 1000 ? "large" : "medium");
function preload(rows: readonly number[]): void {
  for (const row of rows) {
    const media = table.value?.media[row];
    if (media) new Image().src = mediaUrl(media, stageSize());
    void lookAlikes(row);
  }
}

const alike = signal<ReadonlyMap<number, readonly number[]>>(new Map());
const asking = new Set<number>();
const KEPT = 60;
/** Nearest photos of a photo, the nearest first; once for each. */
async function lookAlikes(row: number): Promise<void> {
  const held = table.value;
  if (!held || alike.value.has(row) || asking.has(row)) return;
  asking.add(row);
  try {
    const told = await sendJson<{ hits: { key: string }[] }>("POST", "/api/v1/search", { key: held.keys[row], k: 150 });
    const rows = told.hits.flatMap((hit) => held.rowOf.get(hit.key) ?? []);
    alike.value = new Map([...[...alike.value].slice(-KEPT), [row, rows]]);
  } catch {
    // Without look-alikes the guesses are still there.
  } finally {
    asking.delete(row);
  }
}

/** What a photo may be: guesses first, then the labels of its look-alikes; each with labelled photos to compare. */
export function choicesOf(row: number): Choice[] {
  const near = (alike.value.get(row) ?? []).filter((other) => labels.value[other] != null && other !== row);
  return chooseFrom(guessesOf(row), near, labels.value);
}
export const isCompared = (row: number): boolean => alike.value.has(row);

export function chooseFrom(guessed: readonly Guess[], near: readonly number[], label: readonly (string | null)[]): Choice[] {
  const found = new Map<string, Choice>();
  for (const one of guessed) if (one.probability >= 0.01) found.set(one.label, { ...one, rows: [] });
  for (const row of near) {
    const name = label[row];
    if (name === null || name === undefined) continue;
    if (!found.has(name)) {
      if (found.size >= CHOICES) continue;
      found.set(name, { label: name, rows: [] });
    }
    const choice = found.get(name)!;
    if (choice.rows.length < EXAMPLES) choice.rows.push(row);
  }
  // A guess none of whose photos are near still shows some, so that one sees what it says.
  for (const choice of found.values()) {
    for (let row = 0; row < label.length && choice.rows.length < EXAMPLES; row += 1) {
      if (label[row] === choice.label && !choice.rows.includes(row)) choice.rows.push(row);
    }
  }
  return [...found.values()];
}

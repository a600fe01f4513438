// Photos that could not be loaded are asked for again: after a while, when the network is back, when the service is back.
import { signal } from "@preact/signals";

/** Grows when what failed before may be tried again. */
export const again = signal(0);

const FIRST_MS = 3_000;
/** After so many tries in vain only news of the network or the service starts another one. */
const TRIES = 5;
let tries = 0;
let timer: ReturnType<typeof setTimeout> | null = null;

function next(): void {
  if (timer !== null) clearTimeout(timer);
  timer = null;
  again.value += 1;
}

/** Something failed: there will be another round. */
export function askAgain(): void {
  if (timer !== null || tries >= TRIES) return;
  timer = setTimeout(next, FIRST_MS * 2 ** tries);
  tries += 1;
}

/** What was away is back: try at once. */
export function isBack(): void {
  tries = 0;
  next();
}
if (typeof addEventListener !== "undefined") addEventListener("online", isBack);

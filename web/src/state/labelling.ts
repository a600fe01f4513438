// Set labels: shown at once, sent in the background, undone and redone, settled where somebody else was faster.
import { computed, effect, signal } from "@preact/signals";
import { ApiError, sendJson } from "../lib/api";
import { tell, tellError } from "../lib/toast";
import { LabelQueue, reversal, type Change, type Conflict, type Edit, type Known, type Label } from "./edits";
import { apply, arrived, labels, library, mayLabel, table, versions } from "./library";
import { nameOf } from "./names";
import { takeOverUnsent, keepUnsent } from "./unsent";

/** Photos whose label the service has not acknowledged yet. */
export const unsent = signal(0);
/** False while the service does not answer. */
export const reached = signal(true);
/** Photos that somebody else labelled while we did; nothing is overwritten until it is settled. */
export const conflicts = signal<readonly Conflict[]>([]);
/** Number of the last change that a label of this page made; guesses wait for it. */
export const acknowledged = signal(0);
/** Labels of this person, the last used first. */
export const recent = signal<readonly string[]>(readRecent());

const done = signal<readonly Edit[]>([]);
const undone = signal<readonly Edit[]>([]);
export const canUndo = computed(() => done.value.length > 0);
export const canRedo = computed(() => undone.value.length > 0);

const KEPT_STEPS = 200;
const KEPT_RECENT = 30;

function known(key: string): Known | undefined {
  const row = table.value?.rowOf.get(key);
  return row === undefined ? undefined : { label: labels.value[row] ?? null, version: versions.value[row] ?? 0 };
}

const queue = new LabelQueue({
  known,
  send: (wanted, expected) => sendJson("PUT", "/api/v1/labels", { labels: wanted, expected }),
  told: (changes, change) => {
    apply(changes);
    acknowledged.value = Math.max(acknowledged.value, change);
  },
  takeBack,
  conflict: (found) => {
    const keys = new Set(found.map((one) => one.key));
    conflicts.value = [...conflicts.value.filter((one) => !keys.has(one.key)), ...found];
  },
  changed: (waiting, isReached) => {
    unsent.value = waiting.reduce((sum, edit) => sum + edit.changes.filter((one) => one.version === undefined).length, 0);
    if (reached.value && !isReached) tell("The service does not answer. Your labels are kept here and sent as soon as it does.", "warn");
    if (!reached.value && isReached && unsent.value === 0) tell("The service is back; all labels are saved.");
    reached.value = isReached;
    keepUnsent(library.value?.index ?? "", waiting);
    show();
  },
  // Back on the network means: try at once.
  pause: (ms) => new Promise<void>((resolve) => {
    const go = () => {
      clearTimeout(timer);
      removeEventListener("online", go);
      resolve();
    };
    const timer = setTimeout(go, ms);
    addEventListener("online", go);
  }),
});

/** Lay what waits over what the service told; whenever that is told anew. */
function show(): void {
  const held = table.peek();
  if (!held) return;
  let next: (string | null)[] | null = null;
  for (const edit of queue.edits) {
    for (const one of edit.changes) {
      const row = one.version === undefined ? held.rowOf.get(one.key) : undefined;
      if (row === undefined || (next ?? labels.peek())[row] === one.after) continue;
      next ??= [...labels.peek()];
      next[row] = one.after;
    }
  }
  if (next) labels.value = next;
}
effect(() => {
  if (versions.value.length) show();
});

/** What was refused is shown again as the service has it. */
function takeBack(changes: readonly Change[], error: unknown): void {
  const held = table.peek();
  if (held) {
    const next = [...labels.peek()];
    for (const one of changes) {
      const row = held.rowOf.get(one.key);
      if (row === undefined) continue;
      const newest = arrived.peek().find((other) => other.key === one.key && other.version === versions.peek()[row]);
      next[row] = newest ? newest.after : one.before;
    }
    labels.value = next;
  }
  if (error instanceof ApiError && error.problem.status === 403) tell("Your token does not allow to label; the labels were taken back.", "bad");
  else tellError(error);
}

/** Whether this person may label; says so if not. */
function allowed(): boolean {
  if (mayLabel.value) return true;
  tell("You may look at these photos, but your token does not allow to label them.", "warn");
  return false;
}

function remember(label: Label): void {
  if (label === null) return;
  recent.value = [label, ...recent.value.filter((one) => one !== label)].slice(0, KEPT_RECENT);
  localStorage.setItem("fieldmark-recent-labels", JSON.stringify(recent.value));
}
function readRecent(): string[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem("fieldmark-recent-labels") ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one === "string").slice(0, KEPT_RECENT) : [];
  } catch {
    return [];
  }
}

const photos = (count: number) => (count === 1 ? "1 photo" : `${count.toLocaleString("en")} photos`);

/**
 * Set the label of rows of the table (null: none); returns what was done, by which it can be undone, or null where every
 * photo had that label. Shown at once; what is refused is taken back and told. `quiet`: no message, where the view shows it.
 */
export function setLabels(rows: Iterable<number>, label: Label, quiet = false): Edit | null {
  const held = table.value;
  const text = label?.trim() || null;
  if (!held || !allowed()) return null;
  const keys = [...rows].flatMap((row) => held.keys[row] ?? []);
  const edit = queue.add(new Map(keys.map((key) => [key, text])));
  remember(text);
  if (!edit) return null;
  const count = edit.changes.length;
  done.value = [...done.value, edit].slice(-KEPT_STEPS);
  undone.value = [];
  if (!quiet) {
    tell(text === null ? `${photos(count)} without a label now` : `${photos(count)} labelled ${nameOf(text)}`, "plain", { name: "Undo", run: () => undo(edit) });
  }
  return edit;
}

/** Many labels in one step, by key; for what the history restores. */
export function setEach(wanted: ReadonlyMap<string, Label>): number {
  if (!allowed()) return 0;
  const edit = queue.add(wanted);
  if (!edit) return 0;
  done.value = [...done.value, edit].slice(-KEPT_STEPS);
  undone.value = [];
  return edit.changes.length;
}

/** Take back one edit, by default the last one; nothing where it is not there any more. */
export function undo(edit: Edit | undefined = done.value.at(-1)): void {
  step(done, undone, "undone", edit);
}
export function redo(): void {
  step(undone, done, "set again", undone.value.at(-1));
}

/** Undo is a new label with the version that we made: what others changed since stays. */
function step(from: typeof done, to: typeof done, word: string, edit: Edit | undefined): void {
  if (!edit || !from.value.includes(edit) || !allowed()) return;
  from.value = from.value.filter((one) => one !== edit);
  const { wanted, changedSince } = reversal(edit, known);
  const reversed = queue.add(wanted);
  if (reversed) to.value = [...to.value, reversed];
  const kept = changedSince ? `; ${photos(changedSince)} changed since stay as they are` : "";
  if (reversed) tell(`${photos(reversed.changes.length)} ${word}${kept}`, changedSince ? "warn" : "plain");
  else if (edit.changes.length) tell("Not undone: these photos were changed since.", "warn");
  // All of that step was refused: what came before it is meant.
  else step(from, to, word, from.value.at(-1));
}

/** Settle photos that somebody else labelled meanwhile. */
export function settle(keys: readonly string[], keep: "theirs" | "mine"): void {
  const settled = new Set(keys);
  const mine = conflicts.value.filter((one) => settled.has(one.key));
  conflicts.value = conflicts.value.filter((one) => !settled.has(one.key));
  if (keep === "mine") setEach(new Map(mine.map((one) => [one.key, one.mine])));
}

// What an earlier life of this page could not send is sent now, once the photos are known.
let takenOver = false;
effect(() => {
  if (takenOver || !table.value || !library.value) return;
  takenOver = true;
  void takeOverUnsent(library.value.index).then((edits) => {
    if (!edits.length) return;
    queue.takeOver(edits);
    tell("Labels from your last visit that had not been saved are sent now.");
  });
});

addEventListener("beforeunload", (event) => {
  if (unsent.value) event.preventDefault();
});

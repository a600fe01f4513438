// What the page knows of the photos: the table of one snapshot, kept up to date with everybody's labels.
import { computed, signal } from "@preact/signals";
import { ApiError, get } from "../lib/api";
import { isBack } from "../lib/retry";
import { tellError } from "../lib/toast";

export interface Field {
  name: string;
  kind: "text" | "number" | "bool";
  values: (string | number | boolean)[];
}
export interface Library {
  index: string;
  photos: number;
  missing: number;
  labelled: number;
  encoder: { identity: string; network: string; size: number; weights: string };
  fields: Field[];
  parts: boolean;
  photos_found: boolean;
  snapshot: string;
  change: number;
}
export interface Me {
  name: string;
  scopes: ("read" | "label" | "admin")[];
  tokens: boolean;
  version: string;
}
interface RawTable {
  snapshot: string;
  change: number;
  keys: string[];
  media: string[];
  labels: string[];
  label: number[];
  version: number[];
  missing: number[];
}

/** Columns in the order of the snapshot; a photo is its row. */
export interface Table {
  snapshot: string;
  keys: readonly string[];
  media: readonly string[];
  missing: Uint8Array;
  rowOf: ReadonlyMap<string, number>;
}

export const me = signal<Me | null>(null);
export const library = signal<Library | null>(null);
export const table = signal<Table | null>(null);
/** Label of each row (null: none) and its version; replaced as a whole when anything changes. */
export const labels = signal<readonly (string | null)[]>([]);
export const versions = signal<readonly number[]>([]);
/** Number of the last label change that the page knows of. */
export const change = signal(0);
/** Rows that are chosen, in any view. */
export const selection = signal<ReadonlySet<number>>(new Set());
/** Why there is no library, in the service's words. */
export const trouble = signal<string | null>(null);

/** The service shows training runs only. */
export const noIndex = signal(false);
const RETRY_MS = 3_000;

/** How many photos each label has. */
export const counts = computed(() => {
  const found = new Map<string, number>();
  for (const label of labels.value) if (label !== null) found.set(label, (found.get(label) ?? 0) + 1);
  return found;
});
export const mayLabel = computed(() => me.value?.scopes.includes("label") ?? false);

export async function load(): Promise<void> {
  try {
    me.value = await get<Me>("/api/v1/me");
    library.value = await get<Library>("/api/v1/library");
    await loadTable();
    trouble.value = null;
    void follow();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    noIndex.value = error.code === "no_index";
    trouble.value = error.problem.detail;
    // Not there yet, or just starting again.
    if (error.problem.status === 0 || error.problem.status === 503) setTimeout(() => void load(), RETRY_MS);
  }
}

export async function loadTable(): Promise<void> {
  const raw = await get<RawTable>("/api/v1/table");
  const chosen = new Set([...selection.value].map((row) => table.value?.keys[row]));
  const rowOf = new Map(raw.keys.map((key, row) => [key, row]));
  table.value = { snapshot: raw.snapshot, keys: raw.keys, media: raw.media, missing: Uint8Array.from(raw.missing), rowOf };
  labels.value = raw.label.map((number) => (number < 0 ? null : raw.labels[number]!));
  versions.value = raw.version;
  change.value = raw.change;
  selection.value = new Set([...chosen].flatMap((key) => (key !== undefined && rowOf.has(key) ? [rowOf.get(key)!] : [])));
}

export interface LabelChange {
  number: number;
  key: string;
  before: string | null;
  after: string | null;
  by: string;
  at: string;
  version: number;
}
/** The newest changes that arrived while the page was open, newest first. */
export const arrived = signal<readonly LabelChange[]>([]);

/** Take labels over that this page or somebody else has set. */
export function apply(changes: readonly Pick<LabelChange, "key" | "after" | "version">[]): void {
  if (!table.value) return;
  const nextLabels = [...labels.value];
  const nextVersions = [...versions.value];
  for (const one of changes) {
    const row = table.value.rowOf.get(one.key);
    if (row === undefined || one.version < nextVersions[row]!) continue;
    nextLabels[row] = one.after;
    nextVersions[row] = one.version;
  }
  labels.value = nextLabels;
  versions.value = nextVersions;
}

let following = false;
async function follow(): Promise<void> {
  if (following) return;
  following = true;
  let failed = 0;
  for (;;) {
    try {
      const told = await get<{ change: number; snapshot?: string; changes: LabelChange[] }>(
        "/api/v1/labels/changes", { since: change.value, wait: 20 },
      );
      if (failed) {
        trouble.value = null;
        isBack();
      }
      failed = 0;
      if (told.changes.length) {
        apply(told.changes);
        arrived.value = [...[...told.changes].reverse(), ...arrived.value].slice(0, 500);
      }
      change.value = Math.max(change.value, told.change);
      if (told.snapshot && told.snapshot !== table.value?.snapshot) await loadTable();
    } catch (error) {
      failed += 1;
      if (failed === 2) trouble.value = error instanceof ApiError ? error.problem.detail : String(error);
      if (!(error instanceof ApiError)) tellError(error);
      await new Promise((resolve) => setTimeout(resolve, Math.min(10_000, 500 * 2 ** failed)));
    }
  }
}

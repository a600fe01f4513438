// What Explore shows, worked out from the address, the labels, the lasso and the service's derived answers.
import { computed, effect, signal } from "@preact/signals";
import { ApiError, get } from "../../lib/api";
import { byName } from "../../lib/names";
import { go, query, view } from "../../lib/router";
import { isDark } from "../../lib/theme";
import { paintAmounts, paintKinds, paintPlain, type Paint } from "../../parts/palette";
import { labelCaption, type Caption } from "../../parts/Grid";
import { derived } from "../../state/derived";
import { guesses, guessesOf } from "../../state/guesses";
import { change, counts, labels, library, table } from "../../state/library";
import { nameOf } from "../../state/names";
import { narrow, readFilter, rowsOf, whereOf, writeFilter, type Filter } from "./filter";

export interface MapAnswer {
  snapshot: string;
  how: string;
  final: boolean;
  x: number[];
  y: number[];
}
export interface ClustersAnswer {
  snapshot: string;
  kinds: number;
  clusters: { name: string; size: number; medoid: number; label: string | null }[];
  assigned: number[];
  merges: { first: number; second: number; cosine: number }[];
}
export interface OutliersAnswer {
  snapshot: string;
  usual: number;
  rows: number[];
  scores: number[];
  nearest: (string | null)[];
}
export type DuplicateKind = "exact" | "same" | "burst" | "alike";
export interface DuplicatesAnswer {
  snapshot: string;
  groups: { kind: DuplicateKind; rows: number[]; cosine: number }[];
}

export const map = derived<MapAnswer>("/api/v1/map", (answer) => answer.final !== false);
export const clusters = derived<ClustersAnswer>("/api/v1/clusters");
export const outliers = derived<OutliersAnswer>("/api/v1/outliers");
export const duplicates = derived<DuplicatesAnswer>("/api/v1/duplicates");

export const panels = ["map", "photos", "clusters", "outliers", "duplicates"] as const;
export type Panel = (typeof panels)[number];
export const paints = ["label", "guess", "cluster", "outlier", "plain"] as const;
export type PaintBy = (typeof paints)[number];
export const orders = ["file", "label", "unsure"] as const;
export type Order = (typeof orders)[number];

/** The address while Explore is shown; other views have the same words for other things. */
const here = computed(() => (view.value === "explore" ? query.value : new URLSearchParams()));
function among<T extends string>(words: readonly T[], word: string | null, otherwise: T): T {
  return words.find((one) => one === word) ?? otherwise;
}
export const panel = computed<Panel>(() => among(panels, here.value.get("show"), "photos"));
export const order = computed<Order>(() => among(orders, here.value.get("order"), "file"));
export const byLabel = computed(() => here.value.get("by") === "label");
export const paintBy = computed<PaintBy>(() => among(paints, here.value.get("colour"), labels.value.some((label) => label !== null) ? "label" : "cluster"));
export const opened = computed(() => here.value.get("photo"));
const filterText = computed(() => Object.entries(writeFilter(readFilter(here.value))).map(([name, value]) => `${name}=${value}`).join("&"));
export const filter = computed<Filter>(() => (filterText.value, readFilter(query.peek())));

/** Change parts of the address; undefined takes one away. */
export function place(told: Record<string, string | undefined>, replace = false): void {
  go("explore", { ...Object.fromEntries(query.peek()), ...told }, replace);
}
export function setFilter(told: Partial<Filter>, replace = false): void {
  const next = { ...filter.peek(), ...told };
  const fields = Object.fromEntries([...filter.peek().fields.keys()].map((name) => [`f.${name}`, undefined]));
  place({ ...fields, ...writeFilter(next) }, replace);
}

/** Rows that a line was drawn around on the map; the grid shows only these until it is taken away. */
export const lasso = signal<ReadonlySet<number> | null>(null);
/** Dragging on the map draws around photos. */
export const lassoing = signal(false);
/** Row that is pointed at in the grid. */
export const pointed = signal<number | null>(null);

/** Answer of the service to the part of the filter that only it can look at. */
export const told = signal<{ rows: ReadonlySet<number> | null; error: string | null }>({ rows: null, error: null });
export const where = computed(() => whereOf(filter.value, library.value?.fields ?? []));
let stop = new AbortController();
effect(() => {
  const expression = where.value;
  // Labels can be part of an expression, so that setting one can change which rows it holds for.
  if (/label/i.test(expression)) change.value;
  const snapshot = table.value?.snapshot;
  stop.abort();
  if (!expression || !snapshot) {
    told.value = { rows: null, error: null };
    return;
  }
  const mine = (stop = new AbortController());
  get<{ rows: number[] }>("/api/v1/rows", { where: expression, snapshot }, mine.signal).then(
    (answer) => (told.value = { rows: new Set(answer.rows), error: null }),
    (error) => {
      if (!mine.signal.aborted) told.value = { rows: null, error: error instanceof ApiError ? error.problem.detail : String(error) };
    },
  );
});
let snapshot: string | undefined;
effect(() => {
  // Rows of a line that was drawn are rows of the table of then.
  if (snapshot !== table.value?.snapshot) lasso.value = null;
  snapshot = table.value?.snapshot;
});

effect(() => {
  if (filter.value.clusters.length || (view.value === "explore" && (panel.value === "clusters" || paintBy.value === "cluster"))) clusters.need();
});
const inClusters = computed<ReadonlySet<number> | null>(() => {
  const wanted = new Set(filter.value.clusters);
  if (!wanted.size) return null;
  const found = new Set<number>();
  clusters.value.value?.assigned.forEach((cluster, row) => wanted.has(cluster) && found.add(row));
  return found;
});

const names = computed(() => (table.value?.keys ?? []).map((key) => key.toLowerCase()));
/** 1 for each row that the filter leaves, the lasso aside; null: all. */
export const filtered = computed(() => {
  const { text, label } = filter.value;
  return narrow({ text, label, names: names.value, labels: label !== null || text ? labels.value : [], among: [told.value.rows, inClusters.value] });
});
/** The same, the lasso too. */
export const shown = computed(() => {
  const set = lasso.value;
  if (!set) return filtered.value;
  const rows = new Uint8Array(names.value.length);
  for (const row of set) if (!filtered.value || filtered.value[row]) rows[row] = 1;
  return rows;
});
export const rows = computed<Int32Array>(() => {
  const all = rowsOf(shown.value, table.value?.keys.length ?? 0);
  if (order.value === "label") {
    // Photos without a label come last.
    const by = labels.value;
    const place = new Map([...counts.value.keys()].sort((a, b) => byName(nameOf(a), nameOf(b))).map((label, at) => [label as string | null, at]));
    const at = (row: number) => place.get(by[row] ?? null) ?? place.size;
    return all.slice().sort((a, b) => at(a) - at(b) || a - b);
  }
  if (order.value === "unsure" && guesses.value) {
    const by = guesses.value.probability;
    const has = labels.value;
    // Photos with a label come last: nothing is to be settled about them.
    return all.slice().sort((a, b) => Number(has[a] !== null) - Number(has[b] !== null) || by[a]! - by[b]! || a - b);
  }
  return all;
});
/** Changes when other photos are asked for, not when labels make the same question give others. */
export const question = computed(() => `${filterText.value} ${order.value} ${lasso.value ? [...lasso.value].length : ""}`);
export const filterOn = computed(() => filtered.value !== null || lasso.value !== null);

/** Label, or what it is likely to be. */
export function captionOf(row: number): Caption {
  const label = labels.value[row] ?? null;
  if (label !== null) return labelCaption(label);
  const guess = guessesOf(row)[0];
  return guess ? labelCaption(guess.label, guess.probability) : { text: "No label", kind: "none" };
}

export const clusterName = (place: number): string => {
  const label = clusters.value.value?.clusters[place]?.label;
  return label ? `${place + 1}, mostly ${nameOf(label)}` : String(place + 1);
};

/** Colours are dealt out by what the filter leaves; a drawn line does not change them under one's hands. */
export const paint = computed<Paint>(() => {
  const dark = isDark();
  const count = table.value?.keys.length ?? 0;
  switch (paintBy.value) {
    case "label": return paintKinds(labels.value, filtered.value, dark);
    case "guess": {
      const told = guesses.value;
      const kinds = Array.from({ length: count }, (_, row) => told?.classes[told.guess[row] ?? -1] ?? null);
      return paintKinds(kinds, filtered.value, dark, { none: "No guess", others: "others" });
    }
    case "cluster": {
      const answer = clusters.value.value;
      if (!answer) return paintPlain(count, dark);
      return paintKinds(answer.assigned.map(clusterName), filtered.value, dark, { none: "None", others: "other groups" });
    }
    case "outlier": {
      const answer = outliers.value.value;
      if (!answer) return paintPlain(count, dark);
      const amounts = new Float32Array(count).fill(answer.usual);
      answer.rows.forEach((row, at) => (amounts[row] = answer.scores[at]!));
      return paintAmounts(amounts, dark);
    }
    case "plain": return paintPlain(count, dark);
  }
});
effect(() => {
  if (view.value === "explore" && (panel.value === "outliers" || paintBy.value === "outlier")) outliers.need({ by_label: byLabel.value });
  if (view.value === "explore" && panel.value === "duplicates") duplicates.need();
});

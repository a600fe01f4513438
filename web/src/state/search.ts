// What is looked for: kept in the address so that Back works and links can be shared, and asked of the service once.
import { signal } from "@preact/signals";
import { sendJson } from "../lib/api";
import { boxText, parseBox, type Box } from "../lib/geometry";
import { quoted } from "../lib/names";
import { go } from "../lib/router";

export interface Hit {
  key: string;
  media: string;
  score: number;
  label: string | null;
  missing: boolean;
  /** Where the region was found, as fractions of the upright photo. */
  box?: Box | null;
  /** Where the service knows them. */
  width?: number;
  height?: number;
}
export interface Answer {
  query: { key?: string | null; query?: string | null; media: string };
  hits: Hit[];
  searched: number;
  /** Photos that could not be searched: they have no parts. */
  without: number;
}

/** A photo of the index by its key, or an uploaded one by the service's name for it. */
export type Source = { key: string; query?: undefined } | { query: string; key?: undefined };
export interface Asked {
  source: Source;
  region: Box | null;
  k: number;
  label: string | null;
  /** Only photos without a label. */
  unlabelled: boolean;
  where: string;
}

export const COUNTS = [12, 24, 48, 96, 200] as const;
const USUAL = 24;

export function sourceOf(key: string | null, query: string | null): Source | null {
  return key !== null ? { key } : query !== null ? { query } : null;
}

/** What an address asks for; null: nothing yet. */
export function readAsked(told: URLSearchParams): Asked | null {
  const source = sourceOf(told.get("key"), told.get("query"));
  if (!source) return null;
  const k = Number(told.get("k") ?? USUAL);
  return {
    source,
    region: parseBox(told.get("region")),
    k: Number.isInteger(k) && k >= 1 && k <= 200 ? k : USUAL,
    label: told.get("label"),
    unlabelled: told.has("unlabelled"),
    where: told.get("where") ?? "",
  };
}

export function address(asked: Asked): Record<string, string | undefined> {
  return {
    key: asked.source.key,
    query: asked.source.query,
    region: asked.region ? boxText(asked.region) : undefined,
    k: asked.k === USUAL ? undefined : String(asked.k),
    label: asked.label ?? undefined,
    unlabelled: asked.unlabelled ? "" : undefined,
    where: asked.where || undefined,
  };
}

export function show(asked: Asked, replace = false): void {
  go("search", address(asked), replace);
}

/** All that narrows the search, as one filter of the service. */
export function filterOf(asked: Asked): string | undefined {
  const parts = [
    asked.label !== null ? `label = ${quoted(asked.label)}` : "",
    asked.unlabelled ? "label is null" : "",
    asked.where.trim(),
  ].filter(Boolean);
  return parts.length > 1 ? parts.map((part) => `(${part})`).join(" and ") : parts[0];
}

export const bodyOf = (asked: Asked) => ({
  ...asked.source,
  k: asked.k,
  where: filterOf(asked),
  region: asked.region ?? undefined,
});

/** The last answers, so that coming back from a comparison shows the matches at once. */
const kept = new Map<string, Answer>();
const KEPT = 30;
/** The match that was compared last: the one to come back to. */
export const lastCompared = signal<string | null>(null);

export async function search(asked: Asked, stop: AbortSignal): Promise<Answer> {
  const name = JSON.stringify(bodyOf(asked));
  let answer = kept.get(name);
  if (!answer) {
    answer = await sendJson<Answer>("POST", "/api/v1/search", bodyOf(asked), stop);
    kept.set(name, answer);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value!);
  }
  return answer;
}

/** Answers are as old as the photos they speak of. */
export function forgetAnswers(): void {
  kept.clear();
}

// Which labels to offer, and when a new one looks like a slip of an old one.
import { readable } from "../lib/names";

export interface Suggestion {
  label: string;
  why: "guess" | "recent" | "known";
  /** Mean chance over the photos, 0 to 1, where it is guessed. */
  probability?: number;
  photos: number;
}

/** Letters and digits only, without accents and case: what people mean to be the same. */
export const plain = (text: string): string =>
  text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();

/** How well a label answers what was typed: 3 begins so, 2 a word of it does, 1 all words occur, 0 not. */
function answers(label: string, typed: string): number {
  const [name, text] = [plain(label), plain(typed)];
  if (!text || name.startsWith(text) || plain(readable(label)).startsWith(text)) return 3;
  if (` ${name}`.includes(` ${text}`)) return 2;
  return text.split(" ").every((word) => name.includes(word)) ? 1 : 0;
}

export function suggest(of: {
  typed: string;
  guessed: ReadonlyMap<string, number>;
  recent: readonly string[];
  counts: ReadonlyMap<string, number>;
  most?: number;
}): Suggestion[] {
  const place = new Map(of.recent.map((label, index) => [label, index]));
  const names = new Set([...of.guessed.keys(), ...of.recent, ...of.counts.keys()]);
  const found = [...names].flatMap((label) => {
    const fits = answers(label, of.typed);
    if (!fits) return [];
    const probability = of.guessed.get(label);
    const why = probability !== undefined ? "guess" : place.has(label) ? "recent" : "known";
    return [{ fits, label, why, photos: of.counts.get(label) ?? 0, ...(probability === undefined ? {} : { probability }) } as Suggestion & { fits: number }];
  });
  const order = { guess: 0, recent: 1, known: 2 };
  found.sort((a, b) =>
    b.fits - a.fits || order[a.why] - order[b.why] || (b.probability ?? 0) - (a.probability ?? 0)
    || (place.get(a.label) ?? 0) - (place.get(b.label) ?? 0) || b.photos - a.photos || a.label.localeCompare(b.label));
  return found.slice(0, of.most ?? 9).map(({ fits: _, ...one }) => one);
}

/** The known label that somebody means who types what it reads: `Cardinal` is `017.Cardinal`, unless both are labels. */
export function meant(typed: string, known: ReadonlyMap<string, unknown>): string | null {
  const text = typed.trim();
  if (known.has(text)) return text;
  const found = [...known.keys()].filter((label) => plain(readable(label)) === plain(text) && plain(text) !== "");
  return found.length === 1 ? found[0]! : null;
}

/** A known label that a new one is nearly the same as; null where it is known itself, or truly new. */
export function nearlyTheSame(typed: string, known: Iterable<string>): string | null {
  const text = typed.trim();
  let best: string | null = null;
  let least = Infinity;
  for (const label of known) {
    if (label === text) return null;
    const b = plain(text);
    for (const a of new Set([plain(label), plain(readable(label))])) {
      const bound = Math.min(a.length, b.length) >= 8 ? 2 : Math.min(a.length, b.length) >= 4 ? 1 : 0;
      const away = distance(a, b, bound);
      if (away <= bound && away < least) [best, least] = [label, away];
    }
  }
  return best;
}

/** Insertions, deletions, changes and swaps of neighbours from one text to another; bound + 1 where there are more. */
function distance(a: string, b: string, bound: number): number {
  if (Math.abs(a.length - b.length) > bound) return bound + 1;
  let [earlier, before] = [[] as number[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      let cost = Math.min(before[j]! + 1, row[j - 1]! + 1, before[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, earlier[j - 2]! + 1);
      row.push(cost);
    }
    [earlier, before] = [before, row];
  }
  return before[b.length]!;
}

/** Mean chance of each label over some photos, the most likely first. */
export function meanGuess(of: readonly (readonly { label: string; probability: number }[])[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const photo of of) for (const one of photo) sums.set(one.label, (sums.get(one.label) ?? 0) + one.probability / of.length);
  return new Map([...sums].filter(([, chance]) => chance >= 0.02).sort((a, b) => b[1] - a[1]).slice(0, 6));
}

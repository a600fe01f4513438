// What the service explains, as it arrives, and where the last explanations are kept.
import { sendJsonAndWait, type Working } from "../lib/api";
import type { Box, Point } from "../lib/geometry";
import type { Grid } from "../lib/heat";
import type { Source } from "./search";

export interface Match {
  /** Middle of the part on the encoder's square, as fractions of the square. */
  first: Point;
  second: Point;
  /** How alike the two parts are when only they are compared, -1 to 1. */
  alike: number;
  /** By how much the similarity falls when the part is blurred in one of the two. */
  adds: number;
}
export interface PairReasons {
  similarity: number;
  matches: Match[];
  maps: { first: Grid; second: Grid };
  /** Where the encoder's square lies in each photo, as fractions of the upright photo. */
  square: { first: Box; second: Box };
  /** Side of a part as a share of the encoder's square. */
  part: number;
  believable: boolean;
  belief: string;
}
export interface Example {
  key: string;
  media: string;
  label: string;
  /** The part, as fractions of the upright photo. */
  box: Box;
}
export interface ClassMark {
  /** `telling`: each photo's own most telling place; `part`: the same part in all photos. */
  kind: string;
  sentence: string;
  /** Of the first label and of the second in turn; two that follow each other are best compared. */
  examples: Example[];
}
export interface ClassReasons {
  photos: [number, number];
  /** Photos on the right side of a line drawn without them. */
  right: number;
  total: number;
  /** So few are right that a coin could well do as much: there are no marks to learn. */
  weak: boolean;
  lede: string;
  marks: ClassMark[];
  believable: boolean;
  belief: string;
}

/** Examples two by two, as they are best compared. */
export function pairsOf(examples: readonly Example[]): [Example, Example][] {
  const pairs: [Example, Example][] = [];
  for (let index = 0; index + 1 < examples.length; index += 2) pairs.push([examples[index]!, examples[index + 1]!]);
  return pairs;
}

const kept = new Map<string, unknown>();
const KEPT = 40;

/** Ask once, for explaining takes seconds; `of` tells apart what the body does not (labels that have changed). */
export async function explain<T>(
  what: "pair" | "classes", body: unknown, of: string, told: (working: Working) => void, stop: AbortSignal,
): Promise<T> {
  const name = `${what} ${JSON.stringify(body)} ${of}`;
  if (kept.has(name)) return kept.get(name) as T;
  const found = await sendJsonAndWait<T>(`/api/v1/explain/${what}`, body, told, stop);
  kept.set(name, found);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value!);
  return found;
}

export const pairBody = (first: Source, second: string) => ({ first, second: { key: second } });

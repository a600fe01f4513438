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
  believable: boolean;
  belief: string;
}
/** Side of a part as a share of the encoder's square, as the library measures it. */
export const PART = 0.25;

const kept = new Map<string, unknown>();
const KEPT = 40;

/** Ask once: explaining takes seconds, and photos do not change under their keys while the page is open. */
export async function explain<T>(
  what: "pair" | "classes", body: unknown, told: (working: Working) => void, stop: AbortSignal,
): Promise<T> {
  const name = `${what} ${JSON.stringify(body)}`;
  if (kept.has(name)) return kept.get(name) as T;
  const found = await sendJsonAndWait<T>(`/api/v1/explain/${what}`, body, told, stop);
  kept.set(name, found);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value!);
  return found;
}

export const pairBody = (first: Source, second: string) => ({ first, second: { key: second } });

// Photos without a label by what they are guessed to be.
import type { Guesses } from "../../state/guesses";

export interface Kind {
  label: string;
  /** The surest first. */
  rows: number[];
  /** Of each of the rows. */
  probability: number[];
}

export function kindsOf(told: Pick<Guesses, "classes" | "guess" | "probability" | "unknown">, labels: readonly (string | null)[]): Kind[] {
  const rows = new Map<number, number[]>();
  for (let row = 0; row < told.guess.length; row += 1) {
    const place = told.guess[row]!;
    if (place < 0 || labels[row] != null || told.unknown?.[row]) continue;
    const held = rows.get(place);
    if (held) held.push(row);
    else rows.set(place, [row]);
  }
  return [...rows]
    .map(([place, found]) => {
      found.sort((a, b) => told.probability[b]! - told.probability[a]!);
      return { label: told.classes[place]!, rows: found, probability: found.map((row) => told.probability[row]!) };
    });
}

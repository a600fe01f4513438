// What the photos seem to be, by the labels as they are now. A plain stand-in with the exports of the labelling view's module.
import { effect, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { wait } from "../lib/api";
import { tellError } from "../lib/toast";
import { change, table } from "./library";

export interface Guesses {
  change: number;
  snapshot: string;
  classes: string[];
  guess: number[];
  probability: number[];
  second: number[];
  second_probability: number[];
  unknown: number[] | null;
}
export interface Guess {
  label: string;
  probability: number;
}
export const guesses = signal<Guesses | null>(null);
const users = signal(0);
export function useGuesses(): void {
  useEffect(() => {
    users.value += 1;
    return () => {
      users.value -= 1;
    };
  }, []);
}
effect(() => {
  const number = change.value;
  if (!users.value || !table.value) return;
  wait<Guesses>("/api/v1/guesses", { change: number }).then((told) => (guesses.value = told), tellError);
});

/** The two most likely labels of a photo; none while nothing is known. */
export function guessesOf(row: number): Guess[] {
  const told = guesses.value;
  if (!told?.classes.length) return [];
  const pairs = [[told.guess[row], told.probability[row]], [told.second[row], told.second_probability[row]]] as const;
  return pairs.flatMap(([place, probability]) => {
    const label = place === undefined ? undefined : told.classes[place];
    return label === undefined || probability === undefined ? [] : [{ label, probability }];
  });
}
export const isUnknown = (row: number): boolean => guesses.value?.unknown?.[row] === 1;

// How labels, files and filters are written.

/**
 * A label as a person writes it: `017.Cardinal` is Cardinal, and lines below are spaces. Only what is surely a number of a
 * list goes: `10 mm bolt`, `3-pole switch` and `2012 Ford` keep theirs.
 */
export function readable(label: string): string {
  return label.replace(/^(\d{2,}\. *|0\d+[_ -]+)(?=\p{L})/u, "").replaceAll("_", " ").trim() || label;
}

/** Each label as it is shown: readable, unless another one reads the same; those two are shown as they are. */
export function shownNames(labels: Iterable<string>): Map<string, string> {
  const reads = new Map([...labels].map((label) => [label, readable(label)]));
  const times = new Map<string, number>();
  const alike = (name: string) => name.toLowerCase();
  for (const name of reads.values()) times.set(alike(name), (times.get(alike(name)) ?? 0) + 1);
  return new Map([...reads].map(([label, name]) => [label, times.get(alike(name)) === 1 ? name : label]));
}

/** By what people read, numbers by their size. */
export const byName = (a: string, b: string): number => a.localeCompare(b, undefined, { numeric: true });

/** A share as whole percents; what is nearly all or nearly none never reads as all or none. */
export function percent(share: number): string {
  if (share > 0 && share < 0.005) return "< 1 %";
  if (share < 1 && share >= 0.995) return "> 99 %";
  return `${Math.round(100 * share)} %`;
}

/** How likely a guess is: never all or none, for nothing that is guessed is certain. */
export const chance = (probability: number): string => (probability >= 0.995 ? "> 99 %" : probability < 0.005 ? "< 1 %" : percent(probability));

/** A moment of today by its time, others by their day too. */
export function when(text: string, now = new Date()): string {
  const at = new Date(text);
  const today = at.toDateString() === now.toDateString();
  return at.toLocaleString("en-GB", today ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
}

/** With a capital and a full stop. */
export function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…)]$/.test(begun) ? begun : `${begun}.`;
}

/** The file of a key, without its folders. */
export const fileOf = (key: string): string => key.slice(key.lastIndexOf("/") + 1);

/** A text as filters hold it. */
export const quoted = (text: string): string => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

export const plural = (count: number, one: string, many = `${one}s`): string => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Two digits, with a minus that reads as one. */
export const score = (value: number): string => value.toFixed(2).replace(/^-(0\.00)$/, "$1").replace("-", "−");

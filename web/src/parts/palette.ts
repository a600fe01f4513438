// Colours of the map: few kinds that also colour-blind people can tell apart, and ramps for amounts.
import type { Rgb } from "./mapDrawing";

// After Okabe and Ito (2008), with yellow darkened and blue lightened to be seen on either ground.
const kindsOn = {
  light: ["#0072b2", "#d55e00", "#009e73", "#b5418b", "#8a7400", "#3aa3df", "#5b3fa0", "#8c2d04"],
  dark: ["#56b4e9", "#ff8a3d", "#2ec99a", "#ee8fc4", "#f0e442", "#4f83f1", "#b79cff", "#d9a679"],
} as const;
const noneOn = { light: "#c9c9c1", dark: "#454a43" } as const;
// From usual to strange: the strange stand out from the ground, in lightness too.
const rampOn = { light: ["#cfd3cb", "#e0a33c", "#7a1024"], dark: ["#3b433c", "#c97f2a", "#fff0a8"] } as const;

export const mostKinds = kindsOn.light.length;
/** How much of a soft colour is the ground's. */
const softness = 0.5;
const groundOn = { light: "#ffffff", dark: "#0d0f0d" } as const;
export const rampSteps = 8;

/** Of #rgb or #rrggbb (what builds style sheets makes the first of the second). */
export function rgb(hex: string): Rgb {
  const digits = hex.length === 4 ? [...hex.slice(1)].map((digit) => digit + digit).join("") : hex.slice(1);
  const value = Number.parseInt(digits, 16);
  return [(value >> 16) / 255, ((value >> 8) & 255) / 255, (value & 255) / 255];
}
export const css = (colour: Rgb): string => `rgb(${colour.map((part) => Math.round(part * 255)).join(" ")})`;

/** One class of points in the legend, which can have several groups of points. */
export interface Entry {
  name: string;
  count: number;
  colours: Rgb[];
  groups: readonly number[];
}
export interface Paint {
  group: Uint8Array;
  colours: Rgb[];
  /** The group that is drawn small and below all others: what has no kind. */
  quiet: number | null;
  legend: Entry[];
}

/**
 * Colour the most frequent kinds of the rows that count. The rest share soft shades of the same colours, so that where one
 * kind ends and the next begins is still seen; rows without a kind are quiet.
 */
export function paintKinds(kinds: readonly (string | null)[], counts: Uint8Array | null, dark: boolean, words = { none: "No label", others: "others" }): Paint {
  const on = dark ? "dark" : "light";
  const found = new Map<string, number>();
  kinds.forEach((kind, row) => {
    if (kind !== null && (!counts || counts[row])) found.set(kind, (found.get(kind) ?? 0) + 1);
  });
  const ranked = [...found].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const named = ranked.slice(0, mostKinds);
  const groupOf = new Map(ranked.map(([kind], at) => [kind, at < mostKinds ? at : mostKinds + (at % mostKinds)]));
  // Kinds of which the filter leaves no photo are faint anyway.
  const left = mostKinds;
  const none = 2 * mostKinds;
  const group = Uint8Array.from(kinds, (kind) => (kind === null ? none : groupOf.get(kind) ?? left));
  const ground = rgb(groundOn[on]);
  const full = kindsOn[on].map(rgb);
  const soft = full.map((colour): Rgb => {
    const mix = (part: 0 | 1 | 2) => colour[part] + (ground[part] - colour[part]) * softness;
    return [mix(0), mix(1), mix(2)];
  });
  const colours = [...full, ...soft, rgb(noneOn[on])];
  const legend: Entry[] = named.map(([name, count], at) => ({ name, count, colours: [colours[at]!], groups: [at] }));
  const rest = ranked.slice(mostKinds).reduce((sum, [, count]) => sum + count, 0);
  if (rest) legend.push({ name: `${(ranked.length - mostKinds).toLocaleString("en")} ${words.others}`, count: rest, colours: soft, groups: soft.map((_, at) => mostKinds + at) });
  let without = 0;
  kinds.forEach((kind, row) => (without += kind === null && (!counts || counts[row]) ? 1 : 0));
  if (without) legend.push({ name: words.none, count: without, colours: [colours[none]!], groups: [none] });
  return { group, colours, quiet: none, legend };
}

/** Colour amounts in equal steps from the least to the largest; NaN is painted as the least. */
export function paintAmounts(amounts: Float32Array, dark: boolean): Paint {
  let least = Infinity;
  let most = -Infinity;
  for (const amount of amounts) {
    if (amount < least) least = amount;
    if (amount > most) most = amount;
  }
  const span = most > least ? most - least : 1;
  const anchors = rampOn[dark ? "dark" : "light"].map(rgb);
  const colours = Array.from({ length: rampSteps }, (_, step): Rgb => {
    const place = (step / (rampSteps - 1)) * (anchors.length - 1);
    const from = Math.min(anchors.length - 2, Math.floor(place));
    const mix = (part: 0 | 1 | 2) => anchors[from]![part] + (anchors[from + 1]![part] - anchors[from]![part]) * (place - from);
    return [mix(0), mix(1), mix(2)];
  });
  const group = Uint8Array.from(amounts, (amount) => (amount > least ? Math.min(rampSteps - 1, Math.floor(((amount - least) / span) * rampSteps)) : 0));
  const count = new Array<number>(rampSteps).fill(0);
  for (const step of group) count[step]!++;
  const edge = (step: number) => (least + (span * step) / rampSteps).toFixed(2);
  const legend = amounts.length
    ? colours.map((colour, step) => ({ name: `${edge(step)} to ${edge(step + 1)}`, count: count[step]!, colours: [colour], groups: [step] })).filter((one) => one.count).reverse()
    : [];
  return { group, colours, quiet: null, legend };
}

/** All of one colour. */
export function paintPlain(count: number, dark: boolean): Paint {
  const colours = [rgb(kindsOn[dark ? "dark" : "light"][0])];
  return { group: new Uint8Array(count), colours, quiet: null, legend: [] };
}

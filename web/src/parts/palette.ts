// Colours of the map: few kinds that also colour-blind people can tell apart, and ramps for amounts.
import { oklch, type Rgb } from "../lib/oklch";

// After Okabe and Ito (2008), moved apart until those who lack one kind of cone see any two at least as unlike as
// palette.test.ts says; on white none is too light to be seen.
const kindsOn = {
  light: ["#175cd6", "#cf8b19", "#19b3a0", "#c62a00", "#500090", "#6997fc", "#7e507d", "#750f02"],
  dark: ["#399ac3", "#f16906", "#90fff3", "#cc2962", "#f8f00c", "#655ce4", "#adbeff", "#edb986"],
} as const;
const noneOn = { light: "#c9c9c1", dark: "#454a43" } as const;
// From usual to strange: the strange stand out from the ground, in lightness too.
const rampOn = { light: ["#cfd3cb", "#e0a33c", "#7a1024"], dark: ["#3b433c", "#c97f2a", "#fff0a8"] } as const;

export const mostKinds = kindsOn.light.length;
/** So many of the other kinds have a soft colour of their own; more of them share some. */
export const mostSoft = 120;
const mostShared = 24;
/** How light soft colours are. */
const softOn = { light: [0.74, 0.85, 0.68, 0.79], dark: [0.6, 0.46, 0.67, 0.53] } as const;
const softChroma = 0.1;
/** Degrees: hues that are dealt out by it never come close to one another soon. */
const goldenAngle = 137.508;
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
  /** One of many, told only when somebody asks. */
  more?: boolean;
}
export interface Paint {
  group: Uint8Array;
  colours: Rgb[];
  /** The group that is drawn small and below all others: what has no kind. */
  quiet: number | null;
  legend: Entry[];
}

/**
 * Colour the kinds of all rows. The most frequent ones of the rows that count have the strong colours; each of the rest has
 * a soft one, which stays its own as long as no kind is added, so that where one kind ends and the next begins is seen.
 * Rows without a kind are quiet.
 */
export function paintKinds(kinds: readonly (string | null)[], counts: Uint8Array | null, dark: boolean, words = { none: "No label", others: "others" }): Paint {
  const on = dark ? "dark" : "light";
  const found = new Map<string, number>();
  let without = 0;
  kinds.forEach((kind, row) => {
    const one = !counts || counts[row] ? 1 : 0;
    if (kind === null) without += one;
    else found.set(kind, (found.get(kind) ?? 0) + one);
  });
  const left = [...found].filter(([, count]) => count > 0);
  const ranked = [...left].sort((a, b) => b[1] - a[1] || before(a[0], b[0]));
  const groupOf = new Map([...found.keys()].sort(before).map((kind, at) => [kind, mostKinds + (at < mostSoft ? at : mostSoft + (at % mostShared))]));
  const strong = new Map(ranked.slice(0, mostKinds).map(([kind], at) => [kind, at]));
  const none = mostKinds + mostSoft + mostShared;
  const group = Uint8Array.from(kinds, (kind) => (kind === null ? none : strong.get(kind) ?? groupOf.get(kind)!));
  const colours = [...kindsOn[on].map(rgb), ...Array.from({ length: mostSoft + mostShared }, (_, at) => soft(at, on)), rgb(noneOn[on])];
  const entry = ([name, count]: readonly [string, number], at: number): Entry => ({ name, count, colours: [colours[at]!], groups: [at] });
  const legend = ranked.slice(0, mostKinds).map(entry);
  const rest = left.filter(([kind]) => !strong.has(kind)).sort((a, b) => before(a[0], b[0]));
  const own = rest.filter(([kind]) => groupOf.get(kind)! < mostKinds + mostSoft);
  for (const one of own) legend.push({ ...entry(one, groupOf.get(one[0])!), more: true });
  const shared = rest.filter(([kind]) => groupOf.get(kind)! >= mostKinds + mostSoft);
  if (shared.length) {
    const groups = [...new Set(shared.map(([kind]) => groupOf.get(kind)!))];
    const count = shared.reduce((sum, one) => sum + one[1], 0);
    legend.push({ name: `${shared.length.toLocaleString("en")} ${words.others}`, count, colours: groups.map((at) => colours[at]!), groups, more: true });
  }
  if (without) legend.push({ name: words.none, count: without, colours: [colours[none]!], groups: [none] });
  return { group, colours, quiet: none, legend };
}

const before = (one: string, other: string) => (one < other ? -1 : 1);

/** Kinds that follow one another by name, which are often related, differ both in hue and in lightness. */
function soft(at: number, on: "light" | "dark"): Rgb {
  const levels = softOn[on];
  const level = at % levels.length;
  return oklch(levels[level]!, softChroma, goldenAngle * Math.floor(at / levels.length) + 97 * level);
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

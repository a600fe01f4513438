// Tests of who gets which colour.
import { expect, it } from "vitest";
import { gamma, linear, unlike, type Rgb } from "../lib/oklch";
import { css, mostKinds, mostSoft, paintAmounts, paintKinds, rampSteps, rgb } from "./palette";

const many = (count: number) => Array.from({ length: count }, (_, kind) => new Array<string>(count - kind).fill(`k${String(kind).padStart(4, "0")}`)).flat();

it("gives strong colours to the most frequent kinds and soft ones to all others", () => {
  const kinds = many(12);
  const { group, legend, colours, quiet } = paintKinds([...kinds, null], null, false);
  expect(legend[0]).toMatchObject({ name: "k0000", count: 12, groups: [0] });
  expect(legend).toHaveLength(12 + 1);
  expect(legend.map((entry) => entry.more ?? false)).toEqual([...new Array(mostKinds).fill(false), ...new Array(4).fill(true), false]);
  expect(legend[12]).toMatchObject({ name: "No label", count: 1, groups: [quiet] });
  expect(group[0]).toBe(0);
  expect(group[kinds.length]).toBe(quiet);
  // Each entry shows the colour of its points, and holds no other's.
  const told = legend.flatMap((entry) => entry.groups);
  expect(new Set(told).size).toBe(told.length);
  for (const { name, groups, colours: shown } of legend.slice(0, 12)) {
    expect(group[kinds.indexOf(name)]).toBe(groups[0]);
    expect(shown).toEqual([colours[groups[0]!]]);
  }
  expect(new Set(colours.map(css)).size).toBe(colours.length);
});

it("lets kinds share colours only where there are very many", () => {
  const kinds = many(300);
  const { group, legend } = paintKinds(kinds, null, true);
  const last = legend.at(-1)!;
  expect(last).toMatchObject({ name: `${300 - mostSoft} others`, more: true });
  expect(legend.reduce((sum, entry) => sum + entry.count, 0)).toBe(kinds.length);
  const told = legend.flatMap((entry) => entry.groups);
  expect(new Set(told).size).toBe(told.length);
  for (const one of group) expect(told).toContain(one);
});

it("keeps a soft colour when the order by frequency changes", () => {
  const kinds = many(20);
  const { group } = paintKinds(kinds, null, false);
  const more = [...kinds, "k0019", "k0019", "k0019"];
  const { group: after } = paintKinds(more, null, false);
  const at = kinds.indexOf("k0012");
  expect(after[at]).toBe(group[at]);
});

// Machado, Oliveira and Fernandes (2009), full protanopia and deuteranopia, on linear parts; Oklab's first step is linear too.
const blind = {
  nobody: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protan: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deutan: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
};
function seen([r, g, b]: Rgb, by: readonly (readonly number[])[]): Rgb {
  const [x, y, z] = [linear(r), linear(g), linear(b)];
  const part = ([first, second, third]: readonly number[]) => gamma(Math.min(1, Math.max(0, first! * x + second! * y + third! * z)));
  return [part(by[0]!), part(by[1]!), part(by[2]!)];
}
function least(colours: readonly Rgb[]): number {
  let found = Infinity;
  colours.forEach((one, at) => colours.slice(0, at).forEach((other) => (found = Math.min(found, unlike(one, other)))));
  return found;
}

it.each([false, true])("has strong colours that colour-blind people tell apart (dark: %s)", (dark) => {
  const { colours } = paintKinds(many(8), null, dark);
  for (const by of Object.values(blind)) expect(least(colours.slice(0, mostKinds).map((one) => seen(one, by)))).toBeGreaterThan(0.14);
});

it.each([false, true])("has soft colours of fifty kinds that differ, most from those next by name (dark: %s)", (dark) => {
  const { colours } = paintKinds(many(9), null, dark);
  const soft = colours.slice(mostKinds, mostKinds + 50);
  expect(least(soft)).toBeGreaterThan(0.02);
  for (let at = 1; at < soft.length; at++) expect(unlike(soft[at - 1]!, soft[at]!)).toBeGreaterThan(0.08);
});

it("counts only what the filter leaves, and gives those the colours", () => {
  const { legend, group } = paintKinds(["a", "a", "b"], Uint8Array.of(0, 0, 1), true);
  expect(legend).toHaveLength(1);
  expect(legend[0]).toMatchObject({ name: "b", count: 1 });
  expect(group[0]).not.toBe(group[2]);
});

it("paints amounts in steps", () => {
  const { group, legend } = paintAmounts(Float32Array.of(0, 1, 0.5, NaN), false);
  expect([...group]).toEqual([0, rampSteps - 1, rampSteps / 2, 0]);
  expect(legend[0]).toMatchObject({ name: "0.88 to 1.00", count: 1 });
  expect(paintAmounts(new Float32Array(0), false).legend).toEqual([]);
  expect(paintAmounts(Float32Array.of(2, 2), false).group).toEqual(Uint8Array.of(0, 0));
});

it("reads long and short colours", () => {
  expect(rgb("#ff0080").map((part) => Math.round(part * 255))).toEqual([255, 0, 128]);
  expect(rgb("#fff")).toEqual([1, 1, 1]);
});

it("writes colours as CSS", () => expect(css([1, 0, 0.5])).toBe("rgb(255 0 128)"));

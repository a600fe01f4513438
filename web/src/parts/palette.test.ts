// Tests of who gets which colour.
import { expect, it } from "vitest";
import { css, mostKinds, paintAmounts, paintKinds, rampSteps, rgb } from "./palette";

it("gives colours to the most frequent kinds and soft ones to all others", () => {
  const kinds = Array.from({ length: 12 }, (_, kind) => new Array<string>(12 - kind).fill(`k${kind}`)).flat();
  const { group, legend, colours, quiet } = paintKinds([...kinds, null], null, false);
  expect(legend[0]).toMatchObject({ name: "k0", count: 12, groups: [0] });
  expect(legend).toHaveLength(mostKinds + 2);
  expect(legend[mostKinds]).toMatchObject({ name: "4 others", count: 4 + 3 + 2 + 1 });
  expect(legend[mostKinds + 1]).toMatchObject({ name: "No label", count: 1 });
  expect(group[0]).toBe(0);
  // The legend's entries hold each group once, and those of all points.
  const told = legend.flatMap((entry) => entry.groups);
  expect(new Set(told).size).toBe(told.length);
  for (const one of group) expect(told).toContain(one);
  expect(legend[mostKinds]!.groups).toContain(group[kinds.length - 1]);
  expect(group[kinds.length - 1]).not.toBe(group[kinds.length - 2]);
  expect(group[kinds.length]).toBe(quiet);
  expect(new Set(colours.map(css)).size).toBe(colours.length);
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

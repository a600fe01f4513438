// The log of a run: parts put together, curves made small.
import { describe, expect, it } from "vitest";
import { curveOf, duration, joined, smoothed, thinned, ticks, type LogLine, type Point } from "./runlog";

const lines = (from: number, to: number): LogLine[] => Array.from({ length: to - from }, (_, i) => ({ step: from + i }));

describe("parts of a log", () => {
  it("go behind what is known", () => expect(joined(lines(0, 3), { lines: lines(3, 5), next: 5, more: false })).toEqual(lines(0, 5)));
  it("take the place of what a continued run cut off", () => expect(joined(lines(0, 9), { lines: [], next: 4, more: false })).toEqual(lines(0, 4)));
  it("that bring nothing change nothing", () => {
    const known = lines(0, 3);
    expect(joined(known, { lines: [], next: 3, more: false })).toBe(known);
  });
});

it("a curve leaves out what is no number", () => {
  expect(curveOf([{ epoch: 1, loss: 2 }, { epoch: 2, loss: null }, { kind: "unreadable" }, { epoch: 3, loss: 1 }], "loss")).toEqual([[1, 2], [3, 1]]);
});
it("smoothing keeps a constant and follows a step", () => {
  expect(smoothed([[0, 5], [1, 5], [2, 5]], 10).every(([, y]) => Math.abs(y - 5) < 1e-9)).toBe(true);
  const after = smoothed(Array.from({ length: 60 }, (_, i) => [i, i < 30 ? 0 : 1] as Point), 5);
  expect(after[29]![1]).toBe(0);
  expect(after[59]![1]).toBeGreaterThan(0.99);
});
it("thinning keeps the extremes and the end", () => {
  const many: Point[] = Array.from({ length: 10_000 }, (_, i) => [i, i === 5_001 ? 99 : i === 17 ? -99 : Math.sin(i)] as Point);
  const few = thinned(many, 600);
  expect(few.length).toBeLessThanOrEqual(602);
  expect(few.some(([x]) => x === 5_001)).toBe(true);
  expect(few.some(([x]) => x === 17)).toBe(true);
  expect(few.at(-1)).toEqual(many.at(-1));
  expect(few.every((one, i) => i === 0 || one[0] > few[i - 1]![0])).toBe(true);
});
it.each([[0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]], [0, 24, 6, [0, 5, 10, 15, 20]], [0.13, 0.57, 4, [0.2, 0.4]], [3, 3, 4, [3]]])("ticks of %s to %s", (low, high, about, expected) => {
  expect(ticks(low, high, about)).toEqual(expected);
});
it.each([[3.4, "3 s"], [61, "1 min"], [3600 * 2 + 65, "2 h 01 min"], [86400 * 3, "3 days"]])("%s seconds are %s", (seconds, words) => expect(duration(seconds)).toBe(words));

// Tests of the grid's arithmetic.
import { describe, expect, it } from "vitest";
import { between, drawn, layOut, moved, placeOfKept, reveal } from "./gridLayout";

const wish = { count: 100, room: 1000, size: 180, gap: 10, ratio: 0.75, caption: 24 };

describe("layOut", () => {
  it("fills the room with whole columns and counts a short last line", () => {
    const layout = layOut({ ...wish, count: 101 });
    expect(layout.columns).toBe(5);
    expect(layout.columns * layout.width + (layout.columns - 1) * layout.gap).toBeLessThanOrEqual(1000);
    expect(layout.width).toBe(192);
    expect(layout.lines).toBe(21);
    expect(layout.total).toBe(21 * (144 + 24 + 10));
  });
  it("keeps one column where even one is too wide", () => {
    expect(layOut({ ...wish, room: 60 })).toMatchObject({ columns: 1, width: 60 });
  });
});

describe("drawn", () => {
  const layout = layOut(wish);
  it("covers the window and as much above and below", () => {
    const { first, end } = drawn(layout, 5 * layout.pitch, 3 * layout.pitch);
    expect(first).toBe(2);
    expect(end).toBe(11);
  });
  it("stays within the lines", () => {
    expect(drawn(layout, 0, 300).first).toBe(0);
    expect(drawn(layout, layout.total, 300).end).toBe(layout.lines);
    expect(drawn(layout, 10 * layout.total, 300).first).toBeLessThanOrEqual(layout.lines);
  });
});

describe("reveal", () => {
  const layout = layOut(wish);
  it("does not move for what is seen, and moves as little as it must", () => {
    expect(reveal(layout, 5, 0, 3 * layout.pitch)).toBe(0);
    expect(reveal(layout, 0, 400, 500)).toBe(0);
    expect(reveal(layout, 50, 0, 500)).toBe(11 * layout.pitch - layout.gap - 500);
  });
});

describe("moved", () => {
  it.each([
    ["ArrowRight", 9, 9], ["ArrowLeft", 0, 0], ["ArrowDown", 1, 5], ["ArrowDown", 7, 9], ["ArrowDown", 9, 9], ["ArrowUp", 2, 2],
    ["ArrowUp", 6, 2], ["Home", 7, 0], ["End", 3, 9], ["PageDown", 1, 9], ["PageUp", 9, 1],
  ])("%s from %i leads to %i", (key, from, to) => {
    expect(moved(key, from, 10, 4, 2)).toBe(to);
  });
  it("leaves other keys alone", () => expect(moved("x", 3, 10, 4, 2)).toBeNull());
});

describe("placeOfKept", () => {
  it("finds the photo itself, or the next that is still shown", () => {
    expect(placeOfKept([4, 5, 6, 7], 1, [4, 5, 7])).toBe(1);
    expect(placeOfKept([4, 5, 6, 7], 2, [4, 5, 7])).toBe(2);
    expect(placeOfKept([4, 5], 1, [4])).toBe(-1);
  });
});

it("between takes both ends, in either direction", () => {
  expect(between([9, 8, 7, 6], 3, 1)).toEqual([8, 7, 6]);
});

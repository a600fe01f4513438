// Examples of marks: two by two, and one left over is not shown alone.
import { expect, it } from "vitest";
import { pairsOf, type Example } from "./explain";

const example = (key: string): Example => ({ key, media: key, label: key, box: [0, 0, 1, 1] });

it("lays examples side by side as they come", () => {
  const pairs = pairsOf(["a", "x", "b", "y", "c"].map(example));
  expect(pairs.map((pair) => pair.map((one) => one.key))).toEqual([["a", "x"], ["b", "y"]]);
});

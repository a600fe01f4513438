// What is offered for one photo.
import { expect, it, vi } from "vitest";

vi.mock("./labelling", () => ({ acknowledged: { value: 0 } }));
vi.mock("./library", () => ({ change: { value: 0 }, labels: { value: [] }, table: { value: null } }));
const { chooseFrom } = await import("./next");

const labels = ["a", "a", "b", "c", null, "b"];

it("guesses come first, then what look-alikes are, each with its nearest photos", () => {
  expect(chooseFrom([{ label: "b", probability: 0.7 }, { label: "x", probability: 0.001 }], [3, 5, 1, 4], labels)).toEqual([
    { label: "b", probability: 0.7, rows: [5, 2] },
    { label: "c", rows: [3] },
    { label: "a", rows: [1, 0] },
  ]);
});
it("no more than six", () => {
  const many = Array.from({ length: 20 }, (_, i) => `k${i}`);
  expect(chooseFrom([], many.map((_, i) => i), many).length).toBe(6);
});
it("nothing known, nothing offered", () => {
  expect(chooseFrom([], [], [null, null])).toEqual([]);
});

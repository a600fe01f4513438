// History: steps as people made them, and what restoring one changes.
import { expect, it } from "vitest";
import type { LabelChange } from "../../state/library";
import { groupsOf, restored } from "./groups";
import { kindsOf } from "./kinds";

const at = (number: number, key: string, before: string | null, after: string | null, by = "Ada", second = number) =>
  ({ number, key, before, after, by, version: number + 1, at: new Date(1_700_000_000_000 + 1000 * second).toISOString() }) as LabelChange;

it("one step for many photos, the newest first, each change once", () => {
  const one = [at(1, "a", null, "x", "Ada", 0), at(2, "b", null, "x", "Ada", 0), at(3, "c", null, "x", "Bob", 0), at(4, "d", null, "y", "Bob", 1)];
  const groups = groupsOf([...one, one[2]!]);
  expect(groups.map((group) => [group.by, group.after, group.changes.length])).toEqual([["Bob", "y", 1], ["Bob", "x", 1], ["Ada", "x", 2]]);
});
it("steps that lie apart in time are two", () => {
  expect(groupsOf([at(1, "a", null, "x", "Ada", 0), at(2, "b", null, "x", "Ada", 60)]).length).toBe(2);
});
it("restoring leaves alone what was changed since", () => {
  const [group] = groupsOf([at(1, "a", "old", "x", "Ada", 0), at(2, "b", null, "x", "Ada", 0)]);
  const now = new Map([["a", { label: "x", version: 2 }], ["b", { label: "x", version: 9 }]]);
  expect(restored(group!, (key) => now.get(key))).toEqual(new Map([["a", "old"]]));
});
it("kinds hold photos without a label, the surest first, and none of no known kind", () => {
  const told = { classes: ["b", "a"], guess: [0, 0, 1, -1, 0, 0], probability: [0.5, 0.9, 0.7, 0, 1, 1], unknown: [0, 0, 0, 0, 1, 0] };
  expect(kindsOf(told, [null, null, null, null, null, "b"])).toEqual([
    { label: "b", rows: [1, 0], probability: [0.9, 0.5] },
    { label: "a", rows: [2], probability: [0.7] },
  ]);
});

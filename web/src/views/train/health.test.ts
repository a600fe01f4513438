// Healthy ranges are told relative to the start.
import { expect, it } from "vitest";
import { healthOf } from "./health";

const rank = { low: 0.6, high: null, absolute_low: null };
it.each([[100, 70, "good"], [100, 59, "bad"], [10, 7, "good"]])("a rank of %s that is %s now is %s", (start, now, state) => {
  expect(healthOf(rank, [[0, start], [1, now]]).state).toBe(state);
});
it("a bound may be absolute, and above", () => {
  expect(healthOf({ low: null, high: null, absolute_low: 0.3 }, [[0, 1], [1, 0.2]])).toEqual({ range: { low: 0.3 }, state: "bad", words: "below healthy" });
  expect(healthOf({ low: null, high: 2, absolute_low: null }, [[0, 1], [1, 2.5]]).words).toBe("above healthy");
});
it("without a bound nothing is judged", () => expect(healthOf({ low: null, high: null, absolute_low: null }, [[0, 1]]).state).toBe("none"));

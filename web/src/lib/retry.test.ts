// Failed photos: rounds that come later and later, and end.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { again, askAgain, isBack } from "./retry";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

it("tries again, later each time, and not for ever", () => {
  isBack();
  const from = again.value;
  askAgain();
  askAgain();
  vi.advanceTimersByTime(2_999);
  expect(again.value).toBe(from);
  vi.advanceTimersByTime(1);
  expect(again.value).toBe(from + 1);
  for (let round = 0; round < 20; round += 1) {
    askAgain();
    vi.advanceTimersByTime(100_000);
  }
  expect(again.value).toBe(from + 5);
  isBack();
  expect(again.value).toBe(from + 6);
  askAgain();
  vi.advanceTimersByTime(3_000);
  expect(again.value).toBe(from + 7);
});

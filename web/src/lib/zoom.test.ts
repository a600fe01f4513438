// Looking closer: what lies under the pointer stays there, both photos move alike, nothing leaves its frame.
import { describe, expect, it } from "vitest";
import { fitted } from "./geometry";
import { keepInside, lies, lookAt, MOST, panBy, whole, zoomAround } from "./zoom";

const frame = { width: 600, height: 400 };
const fits = [fitted(frame, { width: 500, height: 375 }), fitted(frame, { width: 300, height: 500 })];

/** The fraction of photo `index` that lies at a place of the frame, measured from its middle. */
function under(look: ReturnType<typeof whole>, index: number, at: { x: number; y: number }) {
  const rect = lies(look, index, frame, fits[index]!);
  return { x: (frame.width / 2 + at.x - rect.x) / rect.width, y: (frame.height / 2 + at.y - rect.y) / rect.height };
}

describe("zoomAround", () => {
  it("keeps what lies under the pointer, in both photos", () => {
    const at = { x: 40, y: -60 };
    const before = zoomAround(whole(2), 4, { x: 0, y: 0 }, frame, fits);
    const after = zoomAround(before, 1.7, at, frame, fits);
    expect(after.scale).toBeCloseTo(6.8);
    for (const index of [0, 1]) {
      expect(under(after, index, at).x).toBeCloseTo(under(before, index, at).x, 9);
      expect(under(after, index, at).y).toBeCloseTo(under(before, index, at).y, 9);
    }
  });
  it("goes back to the whole photos in their middle, and no further", () => {
    const near = zoomAround(whole(2), 5, { x: 200, y: 150 }, frame, fits);
    expect(zoomAround(near, 0.01, { x: -90, y: 3 }, frame, fits)).toEqual(whole(2));
    expect(zoomAround(near, 100, { x: 0, y: 0 }, frame, fits).scale).toBe(MOST);
  });
});

describe("panBy", () => {
  it("moves each photo by as many pixels", () => {
    const before = zoomAround(whole(2), 6, { x: 0, y: 0 }, frame, fits);
    const after = panBy(before, 30, -20, frame, fits);
    for (const index of [0, 1]) {
      const [from, to] = [lies(before, index, frame, fits[index]!), lies(after, index, frame, fits[index]!)];
      expect(to.x - from.x).toBeCloseTo(30, 9);
      expect(to.y - from.y).toBeCloseTo(-20, 9);
    }
  });
  it("stops at the photo's edge", () => {
    const near = zoomAround(whole(2), 6, { x: 0, y: 0 }, frame, fits);
    const rect = lies(panBy(near, 1e6, 1e6, frame, fits), 0, frame, fits[0]!);
    expect(rect.x).toBeCloseTo(0, 6);
    expect(rect.y).toBeCloseTo(0, 6);
  });
});

describe("keepInside", () => {
  it("centres a photo that is narrower than its frame, and lets it move the other way", () => {
    const kept = keepInside({ x: 0.9, y: 0.9 }, 1.5, frame, fits[1]!);
    expect(kept.x).toBe(0.5);
    expect(kept.y).toBeCloseTo(2 / 3);
  });
});

describe("lookAt", () => {
  it("lays each photo's own place into the middle", () => {
    const look = lookAt([{ x: 0.4, y: 0.5 }, { x: 0.5, y: 0.3 }], 5, frame, fits);
    expect(under(look, 0, { x: 0, y: 0 }).x).toBeCloseTo(0.4);
    expect(under(look, 1, { x: 0, y: 0 }).y).toBeCloseTo(0.3);
  });
});

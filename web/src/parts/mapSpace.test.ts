// Tests of the map's geometry: each quick way against the plain one.
import { describe, expect, it } from "vitest";
import { apart, bounded, encloses, inBox, inLasso, makeSpace, nearest, seenBox, toMap, toScreen, wholeMap, zoomed } from "./mapSpace";

/** A small generator, so that a failure can be repeated. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
function cloud(count: number, seed = 1) {
  const next = numbers(seed);
  return makeSpace(Float32Array.from({ length: count }, next), Float32Array.from({ length: count }, next));
}
function scribble(corners: number, seed: number): Float64Array {
  const next = numbers(seed);
  return Float64Array.from({ length: 2 * corners }, () => 1.2 * next() - 0.1);
}
const sorted = (list: number[]) => list.sort((a, b) => a - b);
const all = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("inLasso", () => {
  it.each([3, 4, 9, 40])("agrees with looking at every point, for a line of %i corners that may cross itself", (corners) => {
    const space = cloud(5000, corners);
    const line = scribble(corners, corners + 7);
    const plain = all(5000).filter((i) => encloses(line, space.x[i]!, space.y[i]!));
    expect(plain.length).toBeGreaterThan(0);
    expect(sorted(inLasso(space, line))).toEqual(plain);
  });
  it("finds nothing in a line without area", () => {
    expect(inLasso(cloud(100), [0.1, 0.1, 0.9, 0.9])).toEqual([]);
  });
  it("takes 100,000 points in well under 30 ms", () => {
    const space = cloud(100_000);
    const line = Float64Array.from({ length: 600 }, (_, i) => 0.5 + 0.4 * (i % 2 ? Math.sin : Math.cos)((Math.floor(i / 2) / 300) * 2 * Math.PI));
    let found: number[] = [];
    // The best of a few: a busy machine says nothing about the code.
    const took = [1, 2, 3, 4, 5, 6].map(() => {
      const began = performance.now();
      found = inLasso(space, line);
      return performance.now() - began;
    });
    expect(Math.min(...took)).toBeLessThan(30);
    expect(found.length / 100_000).toBeCloseTo(Math.PI * 0.16, 1);
  });
});

describe("nearest and inBox", () => {
  const space = cloud(3000, 5);
  it("find what looking at every point finds", () => {
    const far = (i: number) => Math.hypot(space.x[i]! - 0.31, space.y[i]! - 0.62);
    const plain = all(3000).reduce((best, i) => (far(i) < far(best) ? i : best), 0);
    expect(nearest(space, 0.31, 0.62, 0.2)).toBe(plain);
    expect(nearest(space, 0.31, 0.62, 0.2, (i) => i !== plain)).not.toBe(plain);
    expect(nearest(space, 0.31, 0.62, 1e-9)).toBe(-1);
    const box = { x0: 0.2, y0: 0.4, x1: 0.35, y1: 0.5 };
    const within = all(3000).filter((i) => space.x[i]! >= 0.2 && space.x[i]! <= 0.35 && space.y[i]! >= 0.4 && space.y[i]! <= 0.5);
    expect(sorted(inBox(space, box))).toEqual(within);
    expect(inBox(space, box, 3)).toHaveLength(3);
  });
  it("know points on the very edge", () => {
    const edge = makeSpace(Float32Array.of(0, 1), Float32Array.of(0, 1));
    expect(nearest(edge, 1, 1, 0.1)).toBe(1);
    expect(sorted(inBox(edge, { x0: -1, y0: -1, x1: 2, y1: 2 }))).toEqual([0, 1]);
  });
});

describe("the window", () => {
  const view = wholeMap(800, 600);
  it("leads to the screen and back", () => {
    const [px, py] = toScreen(view, 0.2, 0.9, 800, 600);
    const [x, y] = toMap(view, px, py, 800, 600);
    expect([x, y]).toEqual([expect.closeTo(0.2), expect.closeTo(0.9)]);
    const box = seenBox(view, 800, 600);
    expect(box.x0).toBeLessThan(0);
    expect(box.y1).toBeGreaterThan(1);
  });
  it("keeps what lies under the pointer when zoomed", () => {
    const before = toMap(view, 500, 200, 800, 600);
    const after = toMap(zoomed(view, 3, 500, 200, 800, 600), 500, 200, 800, 600);
    expect(after).toEqual([expect.closeTo(before[0]), expect.closeTo(before[1])]);
  });
  it("stays where there are points", () => {
    expect(bounded({ x: 9, y: -3, scale: 1e9 }, 800, 600)).toMatchObject({ x: 1, y: 0 });
    expect(bounded({ x: 0.5, y: 0.5, scale: 1 }, 800, 600).scale).toBeGreaterThan(300);
  });
});

it("apart leaves no two frames over one another, in order of importance", () => {
  expect(apart([[7, 0, 0], [8, 10, 5], [9, 60, 0], [10, 60, 41]], 40, 9)).toEqual([7, 9, 10]);
  expect(apart([[7, 0, 0], [9, 60, 0]], 40, 1)).toEqual([7]);
});

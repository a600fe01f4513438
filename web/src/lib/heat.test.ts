// Maps: smooth, true to the grid's middles, laid on the square and nowhere else.
import { describe, expect, it } from "vitest";
import { colour, halfShare, shade, smooth } from "./heat";

const photo = (width: number, height: number) => {
  const pixels = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let index = 0; index < pixels.length; index += 4) pixels.set([200, 100, 50], index);
  return pixels;
};
const at = (pixels: Uint8ClampedArray, width: number, x: number, y: number) => [...pixels.slice(4 * (y * width + x), 4 * (y * width + x) + 3)];

describe("smooth", () => {
  it("has the grid's values at the middles of its cells, the largest as 1", () => {
    const found = smooth([[0, 2], [4, 1]], 2, 2);
    expect([...found]).toEqual([0, 0.5, 1, 0.25]);
  });
  it("has the middle between two cells between them", () => {
    const found = smooth([[0, 0, 1, 1]], 7, 1);
    expect(found[3]).toBeCloseTo(0.5, 1);
    expect(found[2]!).toBeLessThan(found[4]!);
  });
  it("counts what speaks against as nothing, and nothing stays nothing", () => {
    expect([...smooth([[-3, -1], [0, -9]], 3, 3)].every((value) => value === 0)).toBe(true);
    expect(smooth([], 2, 2)).toHaveLength(4);
  });
});

describe("colour", () => {
  const light = (share: number) => {
    const [r, g, b] = colour(share);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  it("becomes lighter with every step", () => {
    const steps = Array.from({ length: 21 }, (_, step) => light(step / 20));
    steps.slice(1).forEach((one, index) => expect(one).toBeGreaterThan(steps[index]!));
    expect(colour(-1)).toEqual(colour(0));
    expect(colour(2)).toEqual(colour(1));
  });
});

describe("shade", () => {
  const grid = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 8, 0], [0, 0, 0, 0]];
  it("keeps the photo's own colour where the map is highest, greys the rest, darkens what was not seen", () => {
    const pixels = photo(60, 40);
    shade(pixels, 60, 40, grid, [1 / 6, 0, 5 / 6, 1], "dimmed");
    expect(at(pixels, 60, 10 + 25, 25)).toEqual([200, 100, 50]);
    const [r, g, b] = at(pixels, 60, 14, 4) as [number, number, number];
    expect(r).toBe(g);
    expect(g).toBe(b);
    expect(at(pixels, 60, 3, 20)[0]!).toBeLessThan(r);
  });
  it("lays the scale over the square alone", () => {
    const pixels = photo(60, 40);
    shade(pixels, 60, 40, grid, [1 / 6, 0, 5 / 6, 1], "map");
    const [r, , b] = at(pixels, 60, 35, 25) as [number, number, number];
    expect(r).toBeGreaterThan(150);
    expect(b).toBeLessThan(r / 2);
    const [outside, same] = at(pixels, 60, 58, 25) as [number, number, number];
    expect(outside).toBe(same);
  });
});

describe("halfShare", () => {
  it("counts the fewest cells that hold half", () => {
    expect(halfShare([[1, 1], [1, 1]])).toBe(0.5);
    expect(halfShare([[9, 1], [-5, 1]])).toBe(0.25);
    expect(halfShare([[0, 0]])).toBe(1);
  });
});

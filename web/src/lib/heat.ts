// Maps over photos: the same shading as on the library's sheets, and a colour scale for those who want numbers.
import type { Box } from "./geometry";

export type Grid = readonly (readonly number[])[];
export type Shading = "dimmed" | "map";

/** Cividis (Nuñez, Anderton & Renslow 2018): even steps to the eye, the same for red-green colour-blind readers. */
const CIVIDIS: readonly (readonly [number, number, number])[] = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
];

/** Colour of a share of the map's largest value, 0 to 1. */
export function colour(share: number): [number, number, number] {
  const place = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const index = Math.min(Math.floor(place), CIVIDIS.length - 2);
  const from = CIVIDIS[index]!;
  const to = CIVIDIS[index + 1]!;
  const part = place - index;
  return [0, 1, 2].map((band) => from[band]! + (to[band]! - from[band]!) * part) as [number, number, number];
}

/** The scale in 256 steps, one after the other: looked up for every pixel. */
const STEPS = Uint8ClampedArray.from(Array.from({ length: 256 }, (_, step) => colour(step / 255)).flat());

/** For a key of the scale. */
export const scaleStops = (): string => CIVIDIS.map(([r, g, b]) => `rgb(${r} ${g} ${b})`).join(", ");

/** Catmull-Rom between four values. */
function cubic(a: number, b: number, c: number, d: number, t: number): number {
  return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
}

/** A grid on more points, smooth between the middles of its cells; below zero counts as zero, the largest value is 1. */
export function smooth(grid: Grid, width: number, height: number): Float32Array {
  const rows = grid.length;
  const columns = grid[0]?.length ?? 0;
  const out = new Float32Array(width * height);
  if (!rows || !columns) return out;
  const at = (row: number, column: number) =>
    Math.max(0, grid[Math.min(Math.max(row, 0), rows - 1)]![Math.min(Math.max(column, 0), columns - 1)]!);
  // Along the rows first, so that every point costs one curve each way.
  const wide = new Float32Array(rows * width);
  for (let x = 0; x < width; x++) {
    const place = ((x + 0.5) / width) * columns - 0.5;
    const column = Math.floor(place);
    for (let row = 0; row < rows; row++) {
      wide[row * width + x] = cubic(at(row, column - 1), at(row, column), at(row, column + 1), at(row, column + 2), place - column);
    }
  }
  const line = (row: number) => Math.min(Math.max(row, 0), rows - 1) * width;
  let top = 0;
  for (let y = 0; y < height; y++) {
    const place = ((y + 0.5) / height) * rows - 0.5;
    const row = Math.floor(place);
    const [a, b, c, d] = [line(row - 1), line(row), line(row + 1), line(row + 2)] as const;
    for (let x = 0; x < width; x++) {
      const value = Math.max(0, cubic(wide[a + x]!, wide[b + x]!, wide[c + x]!, wide[d + x]!, place - row));
      out[y * width + x] = value;
      if (value > top) top = value;
    }
  }
  if (top > 0) for (let index = 0; index < out.length; index++) out[index]! /= top;
  return out;
}

/** Share of the photo's square that half of the map's sum comes from, the largest first. */
export function halfShare(grid: Grid): number {
  const values = grid.flat().map((value) => Math.max(0, value)).sort((a, b) => b - a);
  const total = values.reduce((sum, value) => sum + value, 0);
  if (total <= 0) return 1;
  let sum = 0;
  let cells = 0;
  for (const value of values) {
    sum += value;
    cells += 1;
    if (sum >= total / 2) break;
  }
  return cells / values.length;
}

/**
 * Shade the pixels of a photo (RGBA, changed in place) by a map on its square.
 *
 * `dimmed` keeps colour and light where the map is high and draws a line where it has half of its largest value;
 * `map` lays the colour scale over a grey photo. What lies outside the square was not seen by the encoder: darkest.
 */
export function shade(pixels: Uint8ClampedArray, width: number, height: number, grid: Grid, square: Box, how: Shading): void {
  const left = Math.round(square[0] * width);
  const top = Math.round(square[1] * height);
  const across = Math.max(1, Math.round(square[2] * width) - left);
  const down = Math.max(1, Math.round(square[3] * height) - top);
  const map = smooth(grid, across, down);
  const seen = map.some((value) => value > 0);
  const stroke = Math.max(1, Math.min(width, height) / 440);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const index = 4 * (y * width + x);
      const r = pixels[index]!, g = pixels[index + 1]!, b = pixels[index + 2]!;
      const grey = 0.299 * r + 0.587 * g + 0.114 * b;
      const column = x - left;
      const row = y - top;
      if (column < 0 || row < 0 || column >= across || row >= down) {
        pixels[index] = pixels[index + 1] = pixels[index + 2] = 10 + 0.2 * grey;
        continue;
      }
      const share = map[row * across + column]!;
      if (how === "map") {
        // Light of the photo moves the colour a little, so that the bird stays visible without bending the scale.
        const light = 0.72 + 0.28 * (grey / 255);
        const step = 3 * Math.round(255 * share);
        pixels[index] = STEPS[step]! * light;
        pixels[index + 1] = STEPS[step + 1]! * light;
        pixels[index + 2] = STEPS[step + 2]! * light;
        continue;
      }
      const light = Math.sqrt(share);
      // Grey lifted a little: a dark bird on dark water must stay visible where it is dimmed.
      const dim = (18 + 0.36 * grey) * (1 - light);
      let red = dim + r * light, green = dim + g * light, blue = dim + b * light;
      if (seen) {
        const right = map[row * across + Math.min(column + 1, across - 1)]! - share;
        const below = map[Math.min(row + 1, down - 1) * across + column]! - share;
        // Pixels to the line: dark beside it, white on it.
        const away = Math.abs(share - 0.5) / (Math.sqrt(right * right + below * below) + 1e-6) / stroke;
        if (away < 3.2) {
          const dark = Math.min(3.2 - away, 1);
          const white = Math.min(Math.max(1.7 - away, 0), 1);
          const line = (value: number) => (value + (20 - value) * dark) * (1 - white) + 255 * white;
          red = line(red);
          green = line(green);
          blue = line(blue);
        }
      }
      pixels[index] = red;
      pixels[index + 1] = green;
      pixels[index + 2] = blue;
    }
  }
}

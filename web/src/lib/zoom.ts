// Looking closer at one photo or at two at once: how large, and which place is in the middle of the frame.
import { clamp, type Point, type Rect, type Size } from "./geometry";

/** A look at several photos in frames of the same size: one enlargement, and each photo's own middle. */
export interface Look {
  scale: number;
  /** For each photo the place that lies in the middle of its frame, as fractions of the photo. */
  middles: readonly Point[];
}

export const MOST = 12;
export const whole = (photos: number): Look => ({ scale: 1, middles: Array.from({ length: photos }, () => ({ x: 0.5, y: 0.5 })) });
export const isWhole = (look: Look): boolean => look.scale === 1;

/** The middle that leaves no gap beside a photo which is larger than its frame, and centres one which is not. */
export function keepInside(middle: Point, scale: number, frame: Size, fit: Size): Point {
  const half = (side: number, length: number) => side / (2 * length * scale);
  const x = half(frame.width, fit.width);
  const y = half(frame.height, fit.height);
  return { x: x >= 0.5 ? 0.5 : clamp(middle.x, x, 1 - x), y: y >= 0.5 ? 0.5 : clamp(middle.y, y, 1 - y) };
}

/** Enlarge all photos so that what lies at a place of the frame stays there. `at` is measured from the frame's middle. */
export function zoomAround(look: Look, factor: number, at: Point, frame: Size, fits: readonly Size[]): Look {
  const scale = clamp(look.scale * factor, 1, MOST);
  const middles = look.middles.map((middle, index) => {
    const fit = fits[index]!;
    const moved = {
      x: middle.x + (at.x / fit.width) * (1 / look.scale - 1 / scale),
      y: middle.y + (at.y / fit.height) * (1 / look.scale - 1 / scale),
    };
    return keepInside(moved, scale, frame, fit);
  });
  return { scale, middles };
}

/** Move all photos by as many pixels of the frame. */
export function panBy(look: Look, dx: number, dy: number, frame: Size, fits: readonly Size[]): Look {
  const middles = look.middles.map((middle, index) => {
    const fit = fits[index]!;
    return keepInside(
      { x: middle.x - dx / (fit.width * look.scale), y: middle.y - dy / (fit.height * look.scale) }, look.scale, frame, fit,
    );
  });
  return { scale: look.scale, middles };
}

/** Lay one place of each photo into the middle of its frame. */
export function lookAt(places: readonly Point[], scale: number, frame: Size, fits: readonly Size[]): Look {
  return { scale, middles: places.map((place, index) => keepInside(place, scale, frame, fits[index]!)) };
}

/** Where a photo lies in its frame under this look, in the frame's pixels. */
export function lies(look: Look, index: number, frame: Size, fit: Size): Rect {
  const middle = look.middles[index] ?? { x: 0.5, y: 0.5 };
  const width = fit.width * look.scale;
  const height = fit.height * look.scale;
  return { x: frame.width / 2 - middle.x * width, y: frame.height / 2 - middle.y * height, width, height };
}

// Points on a plane: what is near, what is in a box, what a free-hand line encloses. Bins make 100,000 points quick.

export interface Space {
  x: Float32Array;
  y: Float32Array;
  /** Bins on a side. */
  side: number;
  /** Points of bin b are order[start[b]] to before order[start[b + 1]]. */
  start: Int32Array;
  order: Int32Array;
}

const perBin = 16;

export function makeSpace(x: Float32Array, y: Float32Array): Space {
  const side = Math.max(1, Math.min(256, Math.round(Math.sqrt(x.length / perBin))));
  const start = new Int32Array(side * side + 1);
  const bins = new Int32Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const bin = binOf(y[i]!, side) * side + binOf(x[i]!, side);
    bins[i] = bin;
    start[bin + 1]!++;
  }
  for (let bin = 0; bin < side * side; bin++) start[bin + 1]! += start[bin]!;
  const next = start.slice(0, -1);
  const order = new Int32Array(x.length);
  for (let i = 0; i < x.length; i++) order[next[bins[i]!]!++] = i;
  return { x, y, side, start, order };
}

const binOf = (value: number, side: number) => Math.max(0, Math.min(side - 1, Math.floor(value * side)));

export interface Box {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

/** Points of the bins that a box touches; a visit that returns false ends it. */
function visit({ side, start, order }: Space, box: Box, see: (point: number) => void | false): void {
  for (let by = binOf(box.y0, side); by <= binOf(box.y1, side); by++) {
    for (let bx = binOf(box.x0, side); bx <= binOf(box.x1, side); bx++) {
      for (let at = start[by * side + bx]!; at < start[by * side + bx + 1]!; at++) if (see(order[at]!) === false) return;
    }
  }
}

/** Points in a box, at most `limit` of them. */
export function inBox(space: Space, box: Box, limit = Infinity): number[] {
  const found: number[] = [];
  if (limit <= 0) return found;
  visit(space, box, (point) => {
    const x = space.x[point]!;
    const y = space.y[point]!;
    if (x >= box.x0 && x <= box.x1 && y >= box.y0 && y <= box.y1) found.push(point);
    return found.length >= limit ? false : undefined;
  });
  return found;
}

/** The nearest point within `radius` that `counts`, or -1. */
export function nearest(space: Space, x: number, y: number, radius: number, counts?: (point: number) => boolean): number {
  let best = -1;
  let least = radius * radius;
  visit(space, { x0: x - radius, y0: y - radius, x1: x + radius, y1: y + radius }, (point) => {
    const far = (space.x[point]! - x) ** 2 + (space.y[point]! - y) ** 2;
    if (far <= least && (!counts || counts(point))) {
      best = point;
      least = far;
    }
  });
  return best;
}

/** Whether a closed line [x0, y0, x1, y1, …] goes around a place (even-odd). */
export function encloses(line: ArrayLike<number>, x: number, y: number): boolean {
  let inside = false;
  for (let i = 0, j = line.length - 2; i < line.length; j = i, i += 2) {
    const yi = line[i + 1]!;
    const yj = line[j + 1]!;
    if (yi > y !== yj > y && x < ((line[j]! - line[i]!) * (y - yi)) / (yj - yi) + line[i]!) inside = !inside;
  }
  return inside;
}

/** Points within a closed line. Bins that the line does not cross are taken or left as a whole. */
export function inLasso(space: Space, line: ArrayLike<number>): number[] {
  const found: number[] = [];
  if (line.length < 6) return found;
  const { side, start, order } = space;
  const crossed = new Uint8Array(side * side);
  const box = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  for (let i = 0, j = line.length - 2; i < line.length; j = i, i += 2) {
    const [xi, yi, xj, yj] = [line[i]!, line[i + 1]!, line[j]!, line[j + 1]!];
    box.x0 = Math.min(box.x0, xi);
    box.x1 = Math.max(box.x1, xi);
    box.y0 = Math.min(box.y0, yi);
    box.y1 = Math.max(box.y1, yi);
    // Long edges are cut, so that the bins of a piece's box are about those that it crosses.
    const pieces = Math.max(1, Math.ceil(Math.hypot(xi - xj, yi - yj) * side));
    for (let piece = 0; piece < pieces; piece++) {
      const at = (share: number) => [xj + (xi - xj) * share, yj + (yi - yj) * share] as const;
      const [ax, ay] = at(piece / pieces);
      const [bx, by] = at((piece + 1) / pieces);
      for (let v = binOf(Math.min(ay, by), side); v <= binOf(Math.max(ay, by), side); v++) {
        crossed.fill(1, v * side + binOf(Math.min(ax, bx), side), v * side + binOf(Math.max(ax, bx), side) + 1);
      }
    }
  }
  for (let v = binOf(box.y0, side); v <= binOf(box.y1, side); v++) {
    for (let u = binOf(box.x0, side); u <= binOf(box.x1, side); u++) {
      const bin = v * side + u;
      if (start[bin] === start[bin + 1]) continue;
      const whole = !crossed[bin];
      if (whole && !encloses(line, (u + 0.5) / side, (v + 0.5) / side)) continue;
      for (let at = start[bin]!; at < start[bin + 1]!; at++) {
        const point = order[at]!;
        if (whole || encloses(line, space.x[point]!, space.y[point]!)) found.push(point);
      }
    }
  }
  return found;
}

/** What the window shows: the place in its middle, and px per unit of the map. */
export interface Window {
  x: number;
  y: number;
  scale: number;
}

const margin = 0.94;
const deepest = 400;

export const wholeMap = (width: number, height: number): Window => ({ x: 0.5, y: 0.5, scale: Math.max(1, Math.min(width, height) * margin) });

/** Bring a window back to where there are points. */
export function bounded(view: Window, width: number, height: number): Window {
  const least = wholeMap(width, height).scale * 0.7;
  return {
    scale: Math.max(least, Math.min(least * deepest, view.scale)),
    x: Math.max(0, Math.min(1, view.x)),
    y: Math.max(0, Math.min(1, view.y)),
  };
}

/** Zoom by a factor so that what lies at (px, py) of the window stays there. */
export function zoomed(view: Window, factor: number, px: number, py: number, width: number, height: number): Window {
  const scale = bounded({ ...view, scale: view.scale * factor }, width, height).scale;
  return bounded({
    scale,
    x: view.x + (px - width / 2) * (1 / view.scale - 1 / scale),
    y: view.y + (py - height / 2) * (1 / view.scale - 1 / scale),
  }, width, height);
}

export const toScreen = (view: Window, x: number, y: number, width: number, height: number): [number, number] => [
  (x - view.x) * view.scale + width / 2, (y - view.y) * view.scale + height / 2,
];
export const toMap = (view: Window, px: number, py: number, width: number, height: number): [number, number] => [
  (px - width / 2) / view.scale + view.x, (py - height / 2) / view.scale + view.y,
];
export function seenBox(view: Window, width: number, height: number): Box {
  const [x0, y0] = toMap(view, 0, 0, width, height);
  const [x1, y1] = toMap(view, width, height, width, height);
  return { x0, y0, x1, y1 };
}

/** Of points given by importance, those whose frames of `size` px do not lie over one another; at most `limit`. */
export function apart(places: readonly (readonly [point: number, px: number, py: number])[], size: number, limit: number): number[] {
  const taken = new Map<string, [number, number][]>();
  const found: number[] = [];
  for (const [point, px, py] of places) {
    const u = Math.floor(px / size);
    const v = Math.floor(py / size);
    let free = true;
    for (let dv = -1; free && dv <= 1; dv++) {
      for (let du = -1; free && du <= 1; du++) {
        free = (taken.get(`${u + du},${v + dv}`) ?? []).every(([x, y]) => Math.abs(x - px) >= size || Math.abs(y - py) >= size);
      }
    }
    if (!free) continue;
    const cell = `${u},${v}`;
    taken.set(cell, [...(taken.get(cell) ?? []), [px, py]]);
    found.push(point);
    if (found.length >= limit) break;
  }
  return found;
}

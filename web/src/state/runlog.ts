// The log of a run as curves.
export type LogLine = Readonly<Record<string, string | number | boolean | null>>;
export interface LogPart {
  lines: LogLine[];
  next: number;
  more: boolean;
}
export type Point = readonly [x: number, y: number];

/** A part of the log behind what is known; a run that was continued may have cut some of that off. */
export function joined(known: readonly LogLine[], part: LogPart): readonly LogLine[] {
  const from = part.next - part.lines.length;
  if (!part.lines.length && known.length === part.next) return known;
  return [...known.slice(0, from), ...part.lines];
}

/** One measure over the epochs. */
export function curveOf(lines: readonly LogLine[], name: string): Point[] {
  return lines.flatMap((line) => {
    const [x, y] = [line.epoch, line[name]];
    return typeof x === "number" && typeof y === "number" ? [[x, y] as const] : [];
  });
}

/** Mean of what came last, weighted less the longer ago it is. */
export function smoothed(points: readonly Point[], over: number): Point[] {
  let mean = 0;
  let weight = 0;
  const keep = 1 - 1 / Math.max(1, over);
  return points.map(([x, y]) => {
    mean = keep * mean + (1 - keep) * y;
    weight = keep * weight + (1 - keep);
    return [x, weight > 0 ? mean / weight : y] as const;
  });
}

/** So few points that a screen can show them; of each group the lowest and the highest stay. */
export function thinned(points: readonly Point[], most: number): readonly Point[] {
  if (points.length <= most) return points;
  const size = Math.ceil((2 * points.length) / most);
  const kept: Point[] = [];
  for (let from = 0; from < points.length; from += size) {
    const group = points.slice(from, from + size);
    const low = group.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = group.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low === high ? [low] : low[0] <= high[0] ? [low, high] : [high, low]));
  }
  const last = points.at(-1)!;
  if (kept.at(-1) !== last) kept.push(last);
  return kept;
}

/** Round numbers for an axis that hold a range. */
export function ticks(low: number, high: number, about: number): number[] {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw * 0.999)!;
  const found: number[] = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) found.push(Number((n * step).toPrecision(12)));
  return found;
}

/** A length of time in words. */
export function duration(seconds: number): string {
  const total = Math.round(seconds);
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.round(total / 60)} min`;
  const hours = Math.floor(total / 3600);
  return hours < 48 ? `${hours} h ${String(Math.floor((total % 3600) / 60)).padStart(2, "0")} min` : `${Math.round(hours / 24)} days`;
}

// Where each photo of a grid lies, which lines must be drawn, and where the keys lead; no DOM, so that it can be tested.

export interface Layout {
  columns: number;
  /** Width of a photo and height of a photo, in CSS px. */
  width: number;
  height: number;
  gap: number;
  /** From the top of one line to the top of the next. */
  pitch: number;
  lines: number;
  /** Height of all lines together. */
  total: number;
}

export interface Wish {
  count: number;
  /** Width there is, and the width that one photo should about have. */
  room: number;
  size: number;
  gap: number;
  /** Height of a photo for a width of one, and what the words below it take. */
  ratio: number;
  caption: number;
}

export function layOut({ count, room, size, gap, ratio, caption }: Wish): Layout {
  const columns = Math.max(1, Math.floor((room + gap) / (size + gap)));
  const width = Math.max(1, Math.floor((room - gap * (columns - 1)) / columns));
  const height = Math.round(width * ratio);
  const pitch = height + caption + gap;
  const lines = Math.ceil(count / columns);
  return { columns, width, height, gap, pitch, lines, total: lines * pitch };
}

/** Lines from `first` to before `end` that are to be in the page: what is seen, and as much again above and below. */
export function drawn(layout: Layout, top: number, seen: number): { first: number; end: number } {
  const over = Math.max(2, Math.ceil(seen / layout.pitch));
  const first = Math.max(0, Math.min(layout.lines, Math.floor(top / layout.pitch)) - over);
  return { first, end: Math.min(layout.lines, Math.ceil((top + seen) / layout.pitch) + over) };
}

/** Where to scroll so that the line of `place` is seen whole; `top` where it is already. */
export function reveal(layout: Layout, place: number, top: number, seen: number): number {
  const line = Math.floor(place / layout.columns);
  const upper = line * layout.pitch;
  const lower = upper + layout.pitch - layout.gap;
  if (upper < top) return upper;
  return lower > top + seen ? lower - seen : top;
}

/** The place a key leads to from `place`; null for a key that does not move. */
export function moved(key: string, place: number, count: number, columns: number, page: number): number | null {
  const last = count - 1;
  const clamp = (to: number) => Math.max(0, Math.min(last, to));
  switch (key) {
    case "ArrowLeft": return clamp(place - 1);
    case "ArrowRight": return clamp(place + 1);
    // Up and down keep the column: at the edge they stay, but a short last line is reached.
    case "ArrowUp": return place - columns < 0 ? place : place - columns;
    case "ArrowDown":
      if (place + columns <= last) return place + columns;
      return Math.floor(place / columns) < Math.floor(last / columns) ? last : place;
    case "PageUp": return place - page * columns < 0 ? place % columns : place - page * columns;
    case "PageDown": return clamp(place + page * columns);
    case "Home": return 0;
    case "End": return last;
    default: return null;
  }
}

/** Where the photo that was first on screen is now: itself, or the next one that is still there; -1 for none. */
export function placeOfKept(before: ArrayLike<number>, from: number, now: ArrayLike<number>): number {
  const places = new Map<number, number>();
  for (let place = 0; place < now.length; place++) places.set(now[place]!, place);
  for (let place = from; place < before.length; place++) {
    const kept = places.get(before[place]!);
    if (kept !== undefined) return kept;
  }
  return -1;
}

/** All rows between two places, both of them too. */
export function between(rows: ArrayLike<number>, one: number, other: number): number[] {
  const found: number[] = [];
  for (let place = Math.min(one, other); place <= Math.max(one, other); place++) found.push(rows[place]!);
  return found;
}

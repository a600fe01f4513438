// Boxes and points on photos. A box is x0 y0 x1 y1 in fractions of the upright photo's width and height.

export type Box = readonly [x0: number, y0: number, x1: number, y1: number];
export interface Point {
  x: number;
  y: number;
}
export interface Size {
  width: number;
  height: number;
}
export interface Rect extends Point, Size {}

/** Smaller boxes are slips of the hand, and less than the encoder can tell. */
export const LEAST = 0.04;
export const WHOLE: Box = [0, 0, 1, 1];

export const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), Math.max(low, high));

/** Where a photo lies in a frame that shows all of it, in the middle (letterboxed), in the frame's pixels. */
export function fitted(frame: Size, photo: Size): Rect {
  if (photo.width <= 0 || photo.height <= 0) return { x: 0, y: 0, width: frame.width, height: frame.height };
  const scale = Math.min(frame.width / photo.width, frame.height / photo.height);
  const width = photo.width * scale;
  const height = photo.height * scale;
  return { x: (frame.width - width) / 2, y: (frame.height - height) / 2, width, height };
}

/** A place of the frame as fractions of the photo that lies in it; outside the photo: its nearest edge. */
export function toFraction(place: Point, photo: Rect): Point {
  return {
    x: clamp((place.x - photo.x) / photo.width, 0, 1),
    y: clamp((place.y - photo.y) / photo.height, 0, 1),
  };
}

export function toFrame(place: Point, photo: Rect): Point {
  return { x: photo.x + place.x * photo.width, y: photo.y + place.y * photo.height };
}

export function boxBetween(one: Point, other: Point): Box {
  return [Math.min(one.x, other.x), Math.min(one.y, other.y), Math.max(one.x, other.x), Math.max(one.y, other.y)];
}

export const isLarge = (box: Box): boolean => box[2] - box[0] >= LEAST && box[3] - box[1] >= LEAST;

/** The box elsewhere, as large as it was and inside the photo. */
export function moveBox(box: Box, dx: number, dy: number): Box {
  const x = clamp(dx, -box[0], 1 - box[2]);
  const y = clamp(dy, -box[1], 1 - box[3]);
  return [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
}

/** Which edges are taken: -1 left or top, 1 right or bottom, 0 neither. */
export type Edge = -1 | 0 | 1;

/** The box with some of its edges moved; they stop at the photo's edges and before the other side. */
export function resizeBox(box: Box, across: Edge, down: Edge, dx: number, dy: number): Box {
  let [x0, y0, x1, y1] = box;
  if (across < 0) x0 = clamp(x0 + dx, 0, x1 - LEAST);
  if (across > 0) x1 = clamp(x1 + dx, x0 + LEAST, 1);
  if (down < 0) y0 = clamp(y0 + dy, 0, y1 - LEAST);
  if (down > 0) y1 = clamp(y1 + dy, y0 + LEAST, 1);
  return [x0, y0, x1, y1];
}

/** As addresses hold it: four numbers of three digits. */
export const boxText = (box: Box): string => box.map((edge) => String(Math.round(edge * 1000) / 1000)).join(",");

/** From an address; null for what is no box inside a photo. */
export function parseBox(text: string | null): Box | null {
  const edges = (text ?? "").split(",").map((edge) => (edge.trim() === "" ? NaN : Number(edge)));
  if (edges.length !== 4 || edges.some((edge) => !(edge >= 0 && edge <= 1))) return null;
  const [x0, y0, x1, y1] = edges as [number, number, number, number];
  return x0 < x1 && y0 < y1 ? [x0, y0, x1, y1] : null;
}

/** For those who hear the page. */
export function boxWords(box: Box): string {
  const [x0, y0, x1, y1] = box.map((edge) => Math.round(edge * 100));
  return `from ${x0} to ${x1} % across and from ${y0} to ${y1} % down`;
}

/** A place on the encoder's square as fractions of the photo. */
export function onPhoto(place: Point, square: Box): Point {
  return { x: square[0] + place.x * (square[2] - square[0]), y: square[1] + place.y * (square[3] - square[1]) };
}

/** A part around a place of the square, kept inside it, as fractions of the photo. */
export function partOnPhoto(place: Point, share: number, square: Box): Box {
  const x = clamp(place.x - share / 2, 0, 1 - share);
  const y = clamp(place.y - share / 2, 0, 1 - share);
  const from = onPhoto({ x, y }, square);
  const to = onPhoto({ x: x + share, y: y + share }, square);
  return [from.x, from.y, to.x, to.y];
}

/** The smallest box that is a square in pixels, holds the box, and lies in the photo as far as the photo allows. */
export function squareAround(box: Box, photo: Size, margin = 0): Box {
  const side = Math.min(
    Math.max((box[2] - box[0]) * photo.width, (box[3] - box[1]) * photo.height) * (1 + 2 * margin),
    photo.width, photo.height,
  );
  const width = side / photo.width;
  const height = side / photo.height;
  const x = clamp((box[0] + box[2] - width) / 2, 0, 1 - width);
  const y = clamp((box[1] + box[3] - height) / 2, 0, 1 - height);
  return [x, y, x + width, y + height];
}

/** The largest window of a shape (width through height) that lies in the photo, its middle as near the box's as can be. */
export function windowAround(box: Box, photo: Size, ratio: number): Box {
  const wide = photo.width / photo.height;
  const width = Math.min(1, ratio / wide);
  const height = Math.min(1, wide / ratio);
  const x = clamp((box[0] + box[2] - width) / 2, 0, 1 - width);
  const y = clamp((box[1] + box[3] - height) / 2, 0, 1 - height);
  return [x, y, x + width, y + height];
}

/** A box of the photo as fractions of a window of it, as far as it lies in there. */
export function within(box: Box, window: Box): Box {
  const [x0, y0, x1, y1] = window;
  const across = (x: number) => clamp((x - x0) / (x1 - x0), 0, 1);
  const down = (y: number) => clamp((y - y0) / (y1 - y0), 0, 1);
  return [across(box[0]), down(box[1]), across(box[2]), down(box[3])];
}

export const percent = (share: number): string => `${share * 100}%`;
/** Where a box lies on an element that is exactly as large as its photo. */
export const placed = (box: Box) => ({
  left: percent(box[0]), top: percent(box[1]), width: percent(box[2] - box[0]), height: percent(box[3] - box[1]),
});
/** Where a photo lies under a window that shows this part of it. */
export const behind = ([x0, y0, x1, y1]: Box) => ({
  width: percent(1 / (x1 - x0)), height: percent(1 / (y1 - y0)), left: percent(-x0 / (x1 - x0)), top: percent(-y0 / (y1 - y0)),
});

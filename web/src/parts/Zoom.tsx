// Photos to look at closely, in frames of one size that are enlarged and moved together.
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { mediaUrl } from "../lib/api";
import { fitted, toFrame, type Point, type Rect, type Size } from "../lib/geometry";
import { useSize } from "../lib/size";
import { isWhole, lies, lookAt, panBy, whole, zoomAround, type Look } from "../lib/zoom";

export interface Zooming {
  look: Look;
  frame: RefObject<HTMLDivElement | null>;
  size: Size;
  /** Where each photo lies in its frame. */
  rects: readonly Rect[];
  know: (index: number, photo: Size) => void;
  by: (factor: number, at?: Point) => void;
  pan: (dx: number, dy: number) => void;
  reset: () => void;
  /** Lay one place of each photo (fractions) into the middle. */
  to: (places: readonly Point[], scale: number) => void;
}

/** One look for `photos` photos; `again` changes when other photos are shown. */
export function useZoom(photos: number, again: string): Zooming {
  const frame = useRef<HTMLDivElement>(null);
  const size = useSize(frame);
  const [look, setLook] = useState(() => whole(photos));
  const [known, setKnown] = useState<readonly Size[]>([]);
  useEffect(() => setLook(whole(photos)), [again]);
  const fits = Array.from({ length: photos }, (_, index) => fitted(size, known[index] ?? { width: 4, height: 3 }));
  return {
    look, frame, size,
    rects: fits.map((fit, index) => lies(look, index, size, fit)),
    know: (index, photo) => setKnown((before) => Object.assign([...before], { [index]: photo })),
    by: (factor, at = { x: 0, y: 0 }) => setLook((before) => zoomAround(before, factor, at, size, fits)),
    pan: (dx, dy) => setLook((before) => panBy(before, dx, dy, size, fits)),
    reset: () => setLook(whole(photos)),
    to: (places, scale) => setLook(lookAt(places, scale, size, fits)),
  };
}

export function ZoomFrame(props: {
  zoom: Zooming; index: number; media: string; alt: string; first?: boolean;
  /** Lies over the photo and is enlarged with it. */
  over?: ComponentChildren;
  /** Lies over the frame and keeps its size; gets places of the photo in pixels of the frame. */
  marks?: (at: (place: Point) => Point) => ComponentChildren;
}) {
  const { zoom, index } = props;
  const own = useRef<HTMLDivElement>(null);
  const held = useRef(new Map<number, Point>());
  const [bad, setBad] = useState(false);
  useEffect(() => setBad(false), [props.media]);
  const rect = zoom.rects[index]!;
  const ref = props.first ? zoom.frame : own;

  const fromMiddle = (x: number, y: number): Point => {
    const { left, top, width, height } = ref.current!.getBoundingClientRect();
    return { x: x - left - width / 2, y: y - top - height / 2 };
  };
  const latest = useRef(zoom);
  latest.current = zoom;
  useEffect(() => {
    const element = ref.current!;
    // By hand, because a wheel that enlarges must not scroll the page too.
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      latest.current.by(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), fromMiddle(event.clientX, event.clientY));
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);

  function down(event: PointerEvent) {
    if (event.button !== 0 || (event.target as HTMLElement).closest("button")) return;
    held.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
    ref.current!.setPointerCapture(event.pointerId);
  }
  function move(event: PointerEvent) {
    const before = held.current.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...held.current].find(([id]) => id !== event.pointerId)?.[1];
    held.current.set(event.pointerId, now);
    if (!other) {
      if (!isWhole(zoom.look)) zoom.pan(now.x - before.x, now.y - before.y);
      return;
    }
    const factor = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    zoom.by(factor, fromMiddle((now.x + other.x) / 2, (now.y + other.y) / 2));
    zoom.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
  }
  const up = (event: PointerEvent) => held.current.delete(event.pointerId);

  return (
    <div ref={ref} class={`zoom ${isWhole(zoom.look) ? "" : "zoom-near"}`} onPointerDown={down} onPointerMove={move} onPointerUp={up}
      onPointerCancel={up} onDblClick={(event) => (isWhole(zoom.look) ? zoom.by(3, fromMiddle(event.clientX, event.clientY)) : zoom.reset())}>
      {bad ? <p class="zoom-bad">This photo cannot be shown.</p> : (
        <div class="zoom-photo" style={{ left: `${rect.x}px`, top: `${rect.y}px`, width: `${rect.width}px`, height: `${rect.height}px` }}>
          <img src={mediaUrl(props.media, "large")} alt={props.alt} draggable={false} onError={() => setBad(true)}
            onLoad={(event) => zoom.know(index, { width: event.currentTarget.naturalWidth, height: event.currentTarget.naturalHeight })} />
          {props.over}
        </div>
      )}
      {props.marks?.((place) => toFrame(place, rect))}
    </div>
  );
}

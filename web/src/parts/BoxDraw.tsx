// A box on a photo: drawn, moved and resized with mouse, finger or keys. Lies over an element as large as its photo.
import { useEffect, useRef, useState } from "preact/hooks";
import {
  boxBetween, boxWords, isLarge, moveBox, placed, resizeBox, toFraction, type Box, type Edge, type Point,
} from "../lib/geometry";

type Hold = { what: "draw"; from: Point } | { what: "change"; from: Point; box: Box; across: Edge; down: Edge };
const HANDLES: readonly (readonly [Edge, Edge])[] = [[-1, -1], [0, -1], [1, -1], [-1, 0], [1, 0], [-1, 1], [0, 1], [1, 1]];
const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};
const STEP = 0.02;
/** Keys move in many small steps: the box counts once they rest. */
const REST_MS = 600;

export function BoxDraw(props: {
  box: Box | null;
  /** Whether a finger on the photo draws; otherwise it scrolls. A mouse always draws. */
  drawing: boolean;
  /** The box as it is now, once the hand rests; null: none. */
  onDone: (box: Box | null) => void;
  /** Takes the focus when it appears, because keys made it. */
  focus?: boolean;
}) {
  const ground = useRef<HTMLDivElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const hold = useRef<Hold | null>(null);
  const rest = useRef<ReturnType<typeof setTimeout>>(undefined);
  const [draft, setDraft] = useState<Box | null>(null);
  const box = draft ?? props.box;
  const there = box !== null;

  useEffect(() => () => clearTimeout(rest.current), []);
  useEffect(() => {
    if (there && props.focus) frame.current?.focus({ preventScroll: true });
  }, [there, props.focus]);

  const place = (event: PointerEvent): Point => {
    const { left, top, width, height } = ground.current!.getBoundingClientRect();
    return toFraction({ x: event.clientX - left, y: event.clientY - top }, { x: 0, y: 0, width, height });
  };
  const done = (next: Box | null) => {
    clearTimeout(rest.current);
    setDraft(null);
    props.onDone(next);
  };

  function down(event: PointerEvent) {
    if (event.button !== 0 || !event.isPrimary) return;
    const target = (event.target as HTMLElement).closest<HTMLElement>("[data-across]");
    if (target && box) {
      const { across, down } = target.dataset;
      hold.current = { what: "change", from: place(event), box, across: Number(across) as Edge, down: Number(down) as Edge };
    } else if (event.pointerType !== "touch" || props.drawing) {
      hold.current = { what: "draw", from: place(event) };
    } else return;
    event.preventDefault();
    clearTimeout(rest.current);
    ground.current!.setPointerCapture(event.pointerId);
  }
  function move(event: PointerEvent) {
    const held = hold.current;
    if (!held) return;
    const now = place(event);
    if (held.what === "draw") setDraft(boxBetween(held.from, now));
    else {
      const [dx, dy] = [now.x - held.from.x, now.y - held.from.y];
      setDraft(held.across || held.down ? resizeBox(held.box, held.across, held.down, dx, dy) : moveBox(held.box, dx, dy));
    }
  }
  function up() {
    const held = hold.current;
    hold.current = null;
    if (!held) return;
    if (!draft) {
      // A click beside the box takes it away; one on it changes nothing.
      if (held.what === "draw" && props.box) done(null);
    } else if (isLarge(draft)) {
      done(draft);
      frame.current?.focus({ preventScroll: true });
    } else done(held.what === "draw" ? props.box : draft);
  }
  function keys(event: KeyboardEvent) {
    if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      const [dx, dy] = [arrow[0] * STEP, arrow[1] * STEP];
      const next = event.shiftKey ? resizeBox(box, 1, 1, dx, dy) : moveBox(box, dx, dy);
      setDraft(next);
      clearTimeout(rest.current);
      rest.current = setTimeout(() => done(next), REST_MS);
    } else if (event.key === "Enter") done(box);
    else if (event.key === "Escape" || event.key === "Delete" || event.key === "Backspace") done(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  return (
    <div ref={ground} class={`boxdraw ${props.drawing ? "boxdraw-on" : ""}`}
      onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={() => { hold.current = null; setDraft(null); }}>
      {box && (
        <div ref={frame} class="boxdraw-box" style={placed(box)} tabIndex={0} role="application" data-across="0" data-down="0"
          aria-roledescription="box on the photo" aria-label={`The part that is looked for, ${boxWords(box)}`}
          aria-description="Arrow keys move it, with Shift they resize it, Enter searches, Escape takes it away." onKeyDown={keys}>
          {HANDLES.map(([across, down]) => <span class="boxdraw-handle" data-across={across} data-down={down} key={`${across}${down}`} />)}
        </div>
      )}
    </div>
  );
}

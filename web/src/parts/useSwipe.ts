// A finger that moves sideways over an element says yes or no.
import { useRef, useState } from "preact/hooks";

const FAR = 70;

/** Handlers for the element, and how far it is moved now, to let it follow the finger. */
export function useSwipe(told: { left: () => void; right: () => void }) {
  const from = useRef<{ x: number; y: number; id: number } | null>(null);
  const [moved, setMoved] = useState(0);
  const end = (event: PointerEvent) => {
    const start = from.current;
    from.current = null;
    setMoved(0);
    if (!start || event.type === "pointercancel") return;
    const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
    if (Math.abs(dx) < FAR || Math.abs(dx) < 1.5 * Math.abs(dy)) return;
    if (dx < 0) told.left();
    else told.right();
  };
  return {
    moved,
    far: Math.abs(moved) >= FAR,
    handlers: {
      onPointerDown: (event: PointerEvent) => {
        if (event.pointerType !== "mouse") from.current = { x: event.clientX, y: event.clientY, id: event.pointerId };
      },
      onPointerMove: (event: PointerEvent) => {
        if (from.current?.id === event.pointerId) setMoved(event.clientX - from.current.x);
      },
      onPointerUp: end,
      onPointerCancel: end,
    },
  };
}

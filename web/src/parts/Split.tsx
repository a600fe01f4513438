// Two things side by side with a bar between them that can be dragged, or moved by the arrow keys.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import "../styles/parts.css";

const least = 0.2;
const kept = Number(localStorage.getItem("fieldmark-split"));
const share = signal(kept >= least && kept <= 1 - least ? kept : 0.46);

function setShare(value: number): void {
  share.value = Math.max(least, Math.min(1 - least, value));
  localStorage.setItem("fieldmark-split", share.value.toFixed(3));
}

export function Split(props: { left: ComponentChildren; right: ComponentChildren; name: string }) {
  const box = useRef<HTMLDivElement>(null);
  const drag = (event: PointerEvent) => {
    if (!(event.currentTarget as HTMLElement).hasPointerCapture(event.pointerId)) return;
    const { left, width } = box.current!.getBoundingClientRect();
    setShare((event.clientX - left) / width);
  };
  return (
    <div class="split" ref={box} style={{ gridTemplateColumns: `minmax(0, ${share.value}fr) auto minmax(0, ${1 - share.value}fr)` }}>
      <div>{props.left}</div>
      <div class="split-bar" role="separator" tabIndex={0} aria-orientation="vertical" aria-label={props.name} aria-valuemin={least * 100} aria-valuemax={100 - least * 100}
        aria-valuenow={Math.round(share.value * 100)} onPointerMove={drag} onDblClick={() => setShare(0.46)}
        onPointerDown={(event) => (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId)}
        onKeyDown={(event) => {
          const by = { ArrowLeft: -0.03, ArrowRight: 0.03 }[event.key];
          if (by === undefined) return;
          event.preventDefault();
          setShare(share.value + by);
        }} />
      <div>{props.right}</div>
    </div>
  );
}

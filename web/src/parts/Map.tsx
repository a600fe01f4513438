// The map of all photos: points that lie near one another look alike. Pan, zoom, lasso, look at one.
import { useSignal, type ReadonlySignal, type Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { chance } from "../lib/names";
import { isDark } from "../lib/theme";
import { table } from "../state/library";
import "../styles/map.css";
import { Empty } from "./Empty";
import { fileName, type Caption } from "./Grid";
import { Icon } from "./Icon";
import { MapDrawing } from "./mapDrawing";
import { apart, bounded, inBox, inLasso, makeSpace, nearest, seenBox, toMap, toScreen, wholeMap, zoomed, type Window } from "./mapSpace";
import { rgb, type Paint } from "./palette";
import { Photo } from "./Photo";

export type How = "new" | "add" | "less";

export interface PhotoMapProps {
  /** For screen readers. */
  name: string;
  /** Places within [0, 1], a point for each row. */
  x: Float32Array;
  y: Float32Array;
  paint: Paint;
  /** 1 for rows that are shown, 0 for those that a filter leaves out (they stay as a faint ground); null: all. */
  shown: Uint8Array | null;
  chosen: Signal<ReadonlySet<number>>;
  /** Dragging draws a line around photos instead of moving the map. */
  lassoing: Signal<boolean>;
  /** Row that is pointed at elsewhere, to be marked here. */
  pointed: ReadonlySignal<number | null>;
  caption: (row: number) => Caption;
  onHover: (row: number | null) => void;
  onOpen: (row: number) => void;
  /** Rows that a line was drawn around, or that are in view. */
  onEnclose: (rows: number[], how: How) => void;
  /** What lies over the map: a legend, say. */
  children?: ComponentChildren;
}

const hitRadius = 12;
const clickSlack = 5;
const restMs = 140;
const thumbFrom = 500;
const mostThumbs = 110;
const edgeRoom = 100;
/** So many points move to their new places before one's eyes when a better map comes; more of them jump. */
const mostMoving = 20_000;
const movingMs = 900;
/** After frames slower than this a sample of the points is drawn while the map moves, all of them when it rests. */
const slowFrameMs = 30;
const leastShare = 0.12;

interface Pointed {
  row: number;
  px: number;
  py: number;
}

export function PhotoMap(props: PhotoMapProps) {
  const { x, y } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const line = useRef<SVGPathElement>(null);
  const ring = useRef<HTMLDivElement>(null);
  const thumbLayer = useRef<HTMLDivElement>(null);
  const [drawing, setDrawing] = useState<MapDrawing | null | "none">(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const lassoing = props.lassoing.value;
  const setLassoing = (on: boolean) => (props.lassoing.value = on);
  const [over, setOver] = useState<Pointed | null>(null);
  const thumbs = useSignal<readonly number[]>([]);
  const thumbSize = useSignal(64);
  const space = useMemo(() => makeSpace(x, y), [x, y]);
  const dark = isDark();
  const own = useRef({
    view: { x: 0.5, y: 0.5, scale: 1 } as Window, whole: true, asked: 0, rest: 0, moving: false, quality: 1, last: 0,
    pointers: new Map<number, { px: number; py: number }>(), from: null as { px: number; py: number } | null, moved: false,
    lasso: null as number[] | null, how: "new" as How, drawn: null as { x: Float32Array; y: Float32Array } | null,
  }).current;
  const { width, height } = size;
  // Where all are shown as small photos from the start, those at the edge need room.
  const fit = (across: number, down: number) => (x.length > thumbFrom ? wholeMap(across, down) : wholeMap(across - edgeRoom, down - edgeRoom));

  useLayoutEffect(() => {
    const made = MapDrawing.on(canvas.current!);
    setDrawing(made ?? "none");
    const watch = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      if (width && height) setSize({ width, height });
    });
    watch.observe(box.current!);
    const element = canvas.current!;
    const lost = (event: Event) => event.preventDefault();
    const back = () => {
      made?.restore();
      request();
    };
    element.addEventListener("webglcontextlost", lost);
    element.addEventListener("webglcontextrestored", back);
    return () => {
      watch.disconnect();
      element.removeEventListener("webglcontextlost", lost);
      element.removeEventListener("webglcontextrestored", back);
      cancelAnimationFrame(own.asked);
      clearTimeout(own.rest);
    };
  }, []);

  // What the drawing callback reads is of the newest render, because a frame can be asked for before one and drawn after.
  const now = useRef({ drawing, width, height, count: x.length, pointed: props.pointed });
  now.current = { drawing, width, height, count: x.length, pointed: props.pointed };

  function request(): void {
    if (!own.asked) own.asked = requestAnimationFrame(draw);
  }

  function draw(time: number): void {
    own.asked = 0;
    const { drawing, width, height, count } = now.current;
    if (!drawing || drawing === "none" || !width) return;
    if (own.moving) {
      const took = time - own.last;
      if (took < 200) own.quality = took > slowFrameMs ? Math.max(leastShare, own.quality * 0.75) : Math.min(1, own.quality * 1.03);
    }
    own.last = time;
    drawing.draw(own.view, width, height, {
      ratio: own.moving && own.quality < 1 ? 1 : Math.min(2, devicePixelRatio), size: pointSize(own.view, width, height, count),
      smoothly: !own.moving, share: own.moving ? own.quality : 1,
    });
    place();
  }

  /** Put what is no point (thumbnails, the mark) where its photo is. */
  function place(): void {
    const { width, height, pointed } = now.current;
    const put = (element: HTMLElement, row: number) => {
      const [px, py] = toScreen(own.view, x[row]!, y[row]!, width, height);
      element.style.transform = `translate(${px}px, ${py}px)`;
    };
    for (const child of thumbLayer.current?.children ?? []) put(child as HTMLElement, Number((child as HTMLElement).dataset.row));
    const mark = ring.current;
    const row = pointed.peek();
    if (mark) {
      mark.hidden = row === null || row >= x.length;
      if (row !== null && row < x.length) put(mark, row);
    }
  }

  function look(view: Window): void {
    own.view = view;
    own.whole = false;
    own.moving = true;
    clearTimeout(own.rest);
    own.rest = window.setTimeout(rest, restMs);
    setOver(null);
    request();
  }

  function rest(): void {
    own.moving = false;
    chooseThumbs();
    request();
  }

  /** Photos in place of points, where there are few enough of them to be seen. */
  function chooseThumbs(): void {
    const { width, height } = now.current;
    if (!width) return;
    const { shown } = props;
    const near = inBox(space, seenBox(own.view, width, height), 4 * thumbFrom).filter((row) => !shown || shown[row]);
    if (near.length > thumbFrom) {
      thumbs.value = [];
      return;
    }
    thumbSize.value = Math.max(48, Math.min(112, Math.sqrt((width * height) / Math.max(1, near.length)) * 0.7));
    // Those that are shown already stay, so that nothing jumps when the map is moved a little.
    const before = new Set(thumbs.peek());
    near.sort((a, b) => Number(before.has(b)) - Number(before.has(a)) || a - b);
    thumbs.value = apart(near.map((row) => [row, ...toScreen(own.view, x[row]!, y[row]!, width, height)] as const), thumbSize.value + 4, mostThumbs);
  }

  useLayoutEffect(() => {
    if (!width) return;
    own.view = own.whole ? fit(width, height) : bounded(own.view, width, height);
    request();
    clearTimeout(own.rest);
    own.rest = window.setTimeout(rest, restMs);
  }, [width, height]);

  useLayoutEffect(() => {
    if (!drawing || drawing === "none") return;
    const from = own.drawn;
    own.drawn = { x, y };
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!from || from.x.length !== x.length || x.length > mostMoving || still) {
      drawing.setPlaces(x, y);
      return;
    }
    const between = { x: from.x.slice(), y: from.y.slice() };
    let began = 0;
    let asked = requestAnimationFrame(function step(time: number): void {
      began ||= time;
      const share = Math.min(1, (time - began) / movingMs);
      const eased = share * share * (3 - 2 * share);
      for (let row = 0; row < x.length; row++) {
        between.x[row] = from.x[row]! + (x[row]! - from.x[row]!) * eased;
        between.y[row] = from.y[row]! + (y[row]! - from.y[row]!) * eased;
      }
      drawing.movePlaces(between.x, between.y);
      request();
      if (share < 1) asked = requestAnimationFrame(step);
    });
    return () => {
      cancelAnimationFrame(asked);
      drawing.movePlaces(x, y);
    };
  }, [drawing, x, y]);

  const chosen = props.chosen.value;
  useLayoutEffect(() => {
    if (!drawing || drawing === "none") return;
    const standing = props.shown ? Uint8Array.from(props.shown) : new Uint8Array(x.length).fill(1);
    for (const row of chosen) if (row < standing.length) standing[row] = 2;
    const style = getComputedStyle(box.current!);
    const named = (name: string) => rgb(style.getPropertyValue(name).trim());
    drawing.setLooks({ group: props.paint.group, colours: props.paint.colours, quiet: props.paint.quiet, standing, ground: named("--map-ground"), ring: named("--text") });
    request();
  }, [drawing, x, y, props.paint, props.shown, chosen, dark]);

  useEffect(() => {
    own.rest = window.setTimeout(rest, restMs);
  }, [props.shown, space]);
  useEffect(() => props.pointed.subscribe(() => place()), [props.pointed]);
  useLayoutEffect(place, [thumbs.value]);

  function at(event: MouseEvent): { px: number; py: number } {
    const { left, top } = canvas.current!.getBoundingClientRect();
    return { px: event.clientX - left, py: event.clientY - top };
  }

  /** The photo at a place of the window: a thumbnail there, or the nearest point. */
  function hit(px: number, py: number, reach = hitRadius): number {
    for (const row of thumbs.peek()) {
      const [tx, ty] = toScreen(own.view, x[row]!, y[row]!, width, height);
      if (Math.max(Math.abs(tx - px), Math.abs(ty - py)) <= thumbSize.peek() / 2) return row;
    }
    const [mx, my] = toMap(own.view, px, py, width, height);
    const { shown } = props;
    return nearest(space, mx, my, reach / own.view.scale, shown ? (row) => shown[row] === 1 : undefined);
  }

  function hover(found: number, px: number, py: number): void {
    setOver((old) => (found < 0 ? null : old?.row === found ? old : { row: found, px, py }));
    props.onHover(found < 0 ? null : found);
  }

  function onPointerDown(event: PointerEvent): void {
    if (event.button > 1) return;
    const place = at(event);
    canvas.current!.setPointerCapture(event.pointerId);
    own.pointers.set(event.pointerId, place);
    own.from = place;
    own.moved = own.pointers.size > 1;
    own.lasso = null;
    if (own.pointers.size === 1 && event.button === 0 && (lassoing || event.shiftKey || event.altKey)) {
      own.how = event.altKey ? "less" : event.shiftKey ? "add" : "new";
      own.lasso = [place.px, place.py];
    }
    drawLine();
    // What is pointed at would lie over the line.
    hover(-1, 0, 0);
  }

  function onPointerMove(event: PointerEvent): void {
    const place = at(event);
    const before = own.pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch" && !lassoing) hover(hit(place.px, place.py), place.px, place.py);
      return;
    }
    if (own.from && Math.hypot(place.px - own.from.px, place.py - own.from.py) > clickSlack) own.moved = true;
    if (own.pointers.size === 2) {
      const other = [...own.pointers].find(([id]) => id !== event.pointerId)![1];
      const far = (one: { px: number; py: number }) => Math.max(10, Math.hypot(one.px - other.px, one.py - other.py));
      const middle = (one: { px: number; py: number }) => [(one.px + other.px) / 2, (one.py + other.py) / 2] as const;
      const [ax, ay] = middle(before);
      const [bx, by] = middle(place);
      const moved = { ...own.view, x: own.view.x - (bx - ax) / own.view.scale, y: own.view.y - (by - ay) / own.view.scale };
      look(zoomed(moved, far(place) / far(before), bx, by, width, height));
    } else if (own.lasso) {
      const [lx, ly] = own.lasso.slice(-2) as [number, number];
      if (Math.hypot(place.px - lx, place.py - ly) >= 3) own.lasso.push(place.px, place.py);
      drawLine();
    } else if (own.moved) {
      look(bounded({
        ...own.view, x: own.view.x - (place.px - before.px) / own.view.scale, y: own.view.y - (place.py - before.py) / own.view.scale,
      }, width, height));
    }
    own.pointers.set(event.pointerId, place);
  }

  function onPointerUp(event: PointerEvent): void {
    if (!own.pointers.delete(event.pointerId)) return;
    const place = at(event);
    const { lasso } = own;
    own.lasso = null;
    drawLine();
    if (event.type === "pointercancel") return;
    if (!own.moved) {
      const row = hit(place.px, place.py, event.pointerType === "touch" ? 2 * hitRadius : hitRadius);
      if (row < 0) return;
      if (event.ctrlKey || event.metaKey || event.shiftKey) props.onEnclose([row], chosen.has(row) ? "less" : "add");
      else props.onOpen(row);
    } else if (lasso && lasso.length >= 6) {
      const onMap = lasso.map((value, i) => (i % 2 ? (value - height / 2) / own.view.scale + own.view.y : (value - width / 2) / own.view.scale + own.view.x));
      const { shown } = props;
      props.onEnclose(inLasso(space, onMap).filter((row) => !shown || shown[row]), own.how);
    }
  }

  function drawLine(): void {
    const { lasso } = own;
    let path = "";
    for (let i = 0; lasso && i < lasso.length; i += 2) path += `${i ? "L" : "M"}${lasso[i]!.toFixed(1)} ${lasso[i + 1]!.toFixed(1)}`;
    line.current?.setAttribute("d", path && `${path}Z`);
  }

  useEffect(() => {
    const element = canvas.current!;
    const onWheel = (event: WheelEvent) => {
      event.preventDefault();
      const { px, py } = at(event);
      const { width, height } = now.current;
      const step = event.deltaMode === 1 ? 16 : 1;
      look(zoomed(own.view, Math.exp(-event.deltaY * step * (event.ctrlKey ? 0.01 : 0.0016)), px, py, width, height));
    };
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  }, []);

  const step = (factor: number) => look(zoomed(own.view, factor, width / 2, height / 2, width, height));
  function showWhole(): void {
    look(fit(width, height));
    own.whole = true;
  }
  /** As near as all that is shown (or chosen, where something is) can be seen. */
  function showChosen(): void {
    const rows = chosen.size ? [...chosen] : Array.from(x.keys()).filter((row) => !props.shown || props.shown[row]);
    if (!rows.length) return;
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const row of rows) {
      [x0, x1, y0, y1] = [Math.min(x0, x[row]!), Math.max(x1, x[row]!), Math.min(y0, y[row]!), Math.max(y1, y[row]!)];
    }
    const scale = 0.85 * Math.min(width / Math.max(1e-6, x1 - x0), height / Math.max(1e-6, y1 - y0));
    look(bounded({ x: (x0 + x1) / 2, y: (y0 + y1) / 2, scale: Math.min(scale, 60 * fit(width, height).scale) }, width, height));
  }
  function chooseInView(): void {
    props.onEnclose(inBox(space, seenBox(own.view, width, height)).filter((row) => !props.shown || props.shown[row]), "new");
  }

  function onKeyDown(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== event.currentTarget) return;
    const pan = (dx: number, dy: number) => look(bounded({ ...own.view, x: own.view.x + dx / own.view.scale, y: own.view.y + dy / own.view.scale }, width, height));
    const keys: Record<string, () => void> = {
      ArrowLeft: () => pan(-60, 0), ArrowRight: () => pan(60, 0), ArrowUp: () => pan(0, -60), ArrowDown: () => pan(0, 60),
      "+": () => step(1.4), "=": () => step(1.4), "-": () => step(1 / 1.4), "0": showWhole, f: showChosen, v: chooseInView,
    };
    if (event.key === "Escape" && (own.lasso || chosen.size)) {
      own.lasso = null;
      drawLine();
      props.chosen.value = new Set();
    } else if (keys[event.key]) keys[event.key]!();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  const columns = table.value;
  return (
    <div class="map" ref={box}>
      <div class="map-field" role="application" tabIndex={0} aria-label={props.name}
        aria-description="Arrows move, plus and minus zoom, 0 shows all, F what is chosen, V chooses what is in view." onKeyDown={onKeyDown}>
        <canvas ref={canvas} class={`map-canvas${lassoing ? " map-lassoing" : over ? " map-over" : ""}`} aria-hidden="true" onPointerDown={onPointerDown} onPointerMove={onPointerMove}
          onPointerUp={onPointerUp} onPointerCancel={onPointerUp} onPointerLeave={() => hover(-1, 0, 0)} />
        <div class="map-thumbs" ref={thumbLayer} aria-hidden="true">
          {columns && thumbs.value.map((row) => (
            <div key={row} data-row={row} class="map-thumb">
              <div class={`map-thumb-frame${chosen.has(row) ? " map-thumb-chosen" : ""}`}
                style={{ width: `${thumbSize.value}px`, height: `${thumbSize.value}px`, borderColor: `rgb(${props.paint.colours[props.paint.group[row]!]?.map((part) => part * 255).join(" ")})` }}>
                <Photo media={columns.media[row]!} alt="" eager />
              </div>
            </div>
          ))}
        </div>
        <div class="map-mark" ref={ring} hidden />
        <svg class="map-line" aria-hidden="true"><path ref={line} /></svg>
        {over && columns && over.row < columns.keys.length && <Card over={over} width={width} height={height} caption={props.caption(over.row)} name={columns.keys[over.row]!} media={columns.media[over.row]!} />}
      </div>
      {drawing === "none" && (
        <div class="map-none"><Empty icon="map" title="This browser cannot draw the map">WebGL 2 is off or not there. Everything that can be chosen on the map can be chosen among the photos too.</Empty></div>
      )}
      <div class="map-tools" role="toolbar" aria-label="Map">
        <button class="button button-icon" aria-label="Move the map" title="Move (drag)" aria-pressed={!lassoing} onClick={() => setLassoing(false)}><Icon name="move" /></button>
        <button class="button button-icon" aria-label="Draw around photos" title="Lasso: draw around photos (or drag with Shift; Alt takes away)" aria-pressed={lassoing} onClick={() => setLassoing(true)}><Icon name="lasso" /></button>
        <button class="button button-icon map-zoom map-apart" aria-label="Zoom in" title="Zoom in (+)" onClick={() => step(1.6)}><Icon name="plus" /></button>
        <button class="button button-icon map-zoom" aria-label="Zoom out" title="Zoom out (−)" onClick={() => step(1 / 1.6)}><Icon name="minus" /></button>
        <button class="button button-icon" aria-label="Whole map" title="Whole map (0)" onClick={showWhole}><Icon name="whole" /></button>
        <button class="button button-icon" aria-label="Zoom to what is chosen or shown" title="Zoom to what is chosen or shown (F)" onClick={showChosen}><Icon name="near" /></button>
      </div>
      {props.children}
    </div>
  );
}

/** Larger where there are few points or one looks closely. */
function pointSize(view: Window, width: number, height: number, count: number): number {
  const first = Math.max(1.6, Math.min(8, 0.46 * Math.sqrt((width * height) / Math.max(1, count))));
  return Math.min(14, first * Math.pow(view.scale / wholeMap(width, height).scale, 0.4));
}

const cardWidth = 208;
const cardHeight = 212;

function Card(props: { over: Pointed; width: number; height: number; caption: Caption; name: string; media: string }) {
  const { over, caption } = props;
  const left = over.px + 18 + cardWidth > props.width ? Math.max(4, over.px - 18 - cardWidth) : over.px + 18;
  const top = Math.max(4, Math.min(props.height - cardHeight - 4, over.py - cardHeight / 2));
  return (
    <div class="map-card" aria-hidden="true" style={{ transform: `translate(${left}px, ${top}px)` }}>
      <Photo key={over.row} media={props.media} alt="" eager />
      <div class={`cell-words cell-${caption.kind}`}>
        <span class="cell-text">{caption.text}</span>
        {caption.probability !== undefined && <span class="cell-percent">{chance(caption.probability)}</span>}
      </div>
      <div class="map-card-file">{fileName(props.name)}</div>
    </div>
  );
}

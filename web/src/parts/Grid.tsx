// A grid of any number of photos, of which only those near the window are in the page.
import { signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { Component, type ComponentChildren } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { mediaUrl } from "../lib/api";
import { chance } from "../lib/names";
import { again, askAgain } from "../lib/retry";
import { labels, selection, table } from "../state/library";
import { nameOf } from "../state/names";
import "../styles/grid.css";
import { between, drawn, layOut, moved, placeOfKept, reveal, type Layout } from "./gridLayout";

/** What stands below a photo. A guess is set in other type than a label, with its probability. */
export interface Caption {
  text: string;
  kind: "label" | "guess" | "none";
  /** Of a guess, 0 to 1. */
  probability?: number;
  /** The label as it is stored, where it reads otherwise. */
  stored?: string;
}
export interface Badge {
  text: string;
  tone?: "plain" | "warn" | "bad" | "good";
  title?: string;
}

/**
 * Give the grid an element of a definite height: it fills it and scrolls by itself.
 *
 * Keys: arrows, Home, End, Page keys move; Space chooses; with Shift a range; Ctrl+A all; Escape none; Enter opens.
 * Mouse: click opens (or chooses, by `click`); Ctrl+click and the ring choose one, Shift+click a range.
 * Touch: a tap opens, a long press chooses; while something is chosen a tap chooses too.
 */
export interface GridProps {
  /** Rows of the table, in the order to show them. Give a new array only when something changed. */
  rows: ArrayLike<number>;
  /** For screen readers: what these photos are. */
  name: string;
  /** What is shown, in any words: when it changes the grid begins at the top; while it stays, the place is kept. */
  of?: string;
  /** Default: the selection that all views share. */
  chosen?: Signal<ReadonlySet<number>>;
  choose?: "many" | "none";
  click?: "open" | "choose";
  onOpen?: (row: number) => void;
  /** Row under the pointer or under the cursor; null when it leaves. */
  onHover?: (row: number | null) => void;
  /** May read signals; default: the label. `false`: no words below the photos. */
  caption?: ((row: number) => Caption) | false;
  badge?: (row: number) => Badge | null;
  /** Anything that lies over the photo (a box, say); it cannot be clicked. */
  cover?: (row: number) => ComponentChildren;
  /** Wished width of a photo in px; the grid fits whole columns. Default: `gridSize`, that all grids share. */
  size?: ReadonlySignal<number>;
  /** Height of a photo for a width of one. */
  ratio?: number;
  /** Whole photos on their ground instead of filled frames. */
  whole?: boolean;
  /** Row of the keyboard's cursor, to be read or set from outside. */
  cursor?: Signal<number | null>;
  /** What is said when there are no rows. */
  empty?: ComponentChildren;
}

const remembered = Number(localStorage.getItem("fieldmark-grid-size"));
/** Wished width of a photo in all grids, in px; kept from visit to visit by `setGridSize`. */
export const gridSize = signal(remembered >= 64 && remembered <= 480 ? remembered : innerWidth < 640 ? 112 : 168);
export function setGridSize(size: number): void {
  gridSize.value = Math.max(64, Math.min(480, Math.round(size)));
  localStorage.setItem("fieldmark-grid-size", String(gridSize.value));
}

export const fileName = (key: string): string => key.slice(key.lastIndexOf("/") + 1);

const byLabel = (row: number): Caption => {
  const label = labels.value[row] ?? null;
  return label === null ? { text: "No label", kind: "none" } : labelCaption(label);
};
/** A label, or a guess of one, as the caption of a photo. */
export function labelCaption(label: string, probability?: number): Caption {
  const text = nameOf(label);
  return { text, ...(probability === undefined ? { kind: "label" } : { kind: "guess", probability }), ...(text === label ? {} : { stored: label }) };
}

const gap = 8;
const captionHeight = 24;
const longPressMs = 420;
/** A scroll of more than so many windows at once: photos are asked for when it has ended. */
const hurryWindows = 2;
const calmMs = 80;

export function Grid(props: GridProps) {
  const { rows } = props;
  const chosen = props.chosen ?? selection;
  const many = props.choose !== "none";
  const id = useId();
  const scroller = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState({ width: 0, height: 0 });
  const [top, setTop] = useState(0);
  const [hurry, setHurry] = useState(false);
  const [cursor, setCursor] = useState<number | null>(null);
  const [focused, setFocused] = useState(false);
  // What changes without being drawn: the end of a range that stays, the photo that is pressed, what was shown before.
  const own = useRef({
    anchor: 0, base: new Set<number>() as ReadonlySet<number>, press: 0, pressed: false, calm: 0,
    rows, of: props.of, layout: null as Layout | null, top: 0,
  }).current;

  const layout = layOut({
    count: rows.length, room: room.width, size: (props.size ?? gridSize).value, gap, ratio: props.ratio ?? 0.75,
    caption: props.caption === false ? 0 : captionHeight,
  });
  const place = cursor === null ? -1 : placeOf(rows, cursor, own.anchor);

  useLayoutEffect(() => {
    const box = scroller.current!;
    const measure = () => setRoom((old) => {
      const style = getComputedStyle(box);
      const width = box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      return old.width === width && old.height === box.clientHeight ? old : { width, height: box.clientHeight };
    });
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(box);
    return () => watch.disconnect();
  }, []);

  // Photos that come, go or change their size leave what one looks at where it is.
  useLayoutEffect(() => {
    const before = own.layout;
    const box = scroller.current!;
    if (own.of !== props.of) {
      box.scrollTop = 0;
      setCursor(null);
      own.anchor = 0;
    } else if (before && before.pitch > 0 && own.top > 0 && (own.rows !== rows || before.pitch !== layout.pitch || before.columns !== layout.columns)) {
      const first = Math.floor(own.top / before.pitch) * before.columns;
      const kept = own.rows === rows ? first : placeOfKept(own.rows, first, rows);
      if (kept >= 0) box.scrollTop = Math.floor(kept / layout.columns) * layout.pitch + (own.top % before.pitch) * (layout.pitch / before.pitch);
    }
    own.rows = rows;
    own.of = props.of;
    own.layout = layout;
    own.top = box.scrollTop;
    showFrom(box.scrollTop);
  }, [rows, props.of, layout.pitch, layout.columns]);

  // The cursor can be led from outside.
  const led = props.cursor?.value;
  useEffect(() => {
    if (led === undefined || led === cursor) return;
    setCursor(led);
    if (led !== null) bringIntoView(placeOf(rows, led, -1));
  }, [led]);

  /** Draw again only when another line comes first: in between, scrolling is the browser's alone. */
  function showFrom(at: number): void {
    setTop(Math.floor(at / layout.pitch) * layout.pitch);
  }

  function bringIntoView(to: number): void {
    if (to >= 0) scroller.current!.scrollTop = reveal(layout, to, scroller.current!.scrollTop, room.height);
  }

  function onScroll(): void {
    const now = scroller.current!.scrollTop;
    if (Math.abs(now - own.top) > hurryWindows * room.height) {
      setHurry(true);
      clearTimeout(own.calm);
      own.calm = window.setTimeout(() => setHurry(false), calmMs);
    }
    own.top = now;
    showFrom(now);
  }

  function moveTo(to: number, range: boolean): void {
    const row = rows[to];
    if (row === undefined) return;
    setCursor(row);
    if (props.cursor) props.cursor.value = row;
    props.onHover?.(row);
    bringIntoView(to);
    if (range && many) chosen.value = new Set([...own.base, ...between(rows, own.anchor, to)]);
    else own.anchor = to;
  }

  /** Choose one photo or take it away, and begin a range there. */
  function turn(at: number): void {
    const row = rows[at];
    if (row === undefined || !many) return;
    const next = new Set(chosen.value);
    if (!next.delete(row)) next.add(row);
    own.anchor = at;
    own.base = next;
    chosen.value = next;
  }

  function onKeyDown(event: KeyboardEvent): void {
    if (event.altKey || !rows.length) return;
    const control = event.ctrlKey || event.metaKey;
    if (control && event.key.toLowerCase() === "a" && many) chosen.value = new Set(Array.from(rows));
    else if (control) return;
    else if (event.key === "Escape" && many && chosen.value.size) {
      chosen.value = new Set();
      own.base = chosen.value;
    } else if (event.key === " ") {
      if (place < 0) return;
      if (event.shiftKey) moveTo(place, true);
      else turn(place);
    } else if (event.key === "Enter" && place >= 0) props.onOpen?.(rows[place]!);
    else {
      const page = Math.max(1, Math.floor(room.height / layout.pitch));
      const to = moved(event.key, Math.max(0, place), rows.length, layout.columns, page);
      if (to === null) return;
      if (!event.shiftKey) own.base = chosen.value;
      moveTo(place < 0 && event.key !== "End" ? firstSeen() : to, event.shiftKey);
    }
    event.preventDefault();
    event.stopPropagation();
  }

  const firstSeen = () => Math.min(rows.length - 1, Math.ceil(Math.max(0, own.top - gap) / layout.pitch) * layout.columns);

  function placeAt(event: Event): number {
    const cell = (event.target as Element).closest<HTMLElement>("[data-place]");
    return cell ? Number(cell.dataset.place) : -1;
  }

  function onClick(event: MouseEvent): void {
    const at = placeAt(event);
    if (own.pressed || at < 0) {
      own.pressed = false;
      return;
    }
    const ring = (event.target as Element).closest(".grid-ring") !== null;
    const row = rows[at]!;
    const choosing = props.click === "choose" || ring || event.ctrlKey || event.metaKey || (chosen.value.size > 0 && many && isTouch(event));
    setCursor(row);
    if (props.cursor) props.cursor.value = row;
    if (event.shiftKey && many) {
      if (!own.base.size) own.base = chosen.value;
      moveTo(at, true);
    } else if (choosing && many) turn(at);
    else {
      own.anchor = at;
      own.base = chosen.value;
      props.onOpen?.(row);
    }
  }

  function onPointerDown(event: PointerEvent): void {
    own.pressed = false;
    if (event.pointerType !== "touch" || !many) return;
    const at = placeAt(event);
    own.press = window.setTimeout(() => {
      own.pressed = true;
      if (at >= 0) turn(at);
      navigator.vibrate?.(12);
    }, longPressMs);
  }
  const endPress = () => clearTimeout(own.press);

  function onPointerOver(event: PointerEvent): void {
    if (event.pointerType === "touch" || !props.onHover) return;
    const at = placeAt(event);
    props.onHover(at < 0 ? null : rows[at]!);
  }

  const columns = table.value;
  const { first, end } = room.width ? drawn(layout, top, room.height) : { first: 0, end: 0 };
  const cells: ComponentChildren[] = [];
  for (let at = first * layout.columns; columns && at < Math.min(rows.length, end * layout.columns); at++) {
    const row = rows[at]!;
    const key = columns.keys[row];
    if (key === undefined) continue;
    const caption = props.caption === false ? null : (props.caption ?? byLabel)(row);
    const badge = props.badge?.(row) ?? null;
    const y = Math.floor(at / layout.columns) * layout.pitch;
    cells.push(
      <Cell key={row} id={`${id}-${row}`} place={at} count={rows.length} name={key} media={columns.media[row]!}
        missing={columns.missing[row] === 1} x={(at % layout.columns) * (layout.width + gap)} y={y}
        width={layout.width} height={layout.height} large={layout.width * devicePixelRatio > 330} whole={props.whole ?? false}
        seen={y + layout.pitch > top && y < top + room.height} wait={hurry}
        text={caption?.text} stored={caption?.stored} kind={caption?.kind} probability={caption?.probability}
        badge={badge?.text} tone={badge?.tone} why={badge?.title}
        chosen={chosen.value.has(row)} many={many} current={focused && row === cursor} cover={props.cover?.(row)} />,
    );
  }
  if (!rows.length) return <div class="grid grid-none" ref={scroller}>{props.empty ?? <p class="empty">No photos.</p>}</div>;
  return (
    <div ref={scroller} class={`grid${chosen.value.size && many ? " grid-choosing" : ""}`} role="listbox" tabIndex={0}
      aria-label={props.name} aria-multiselectable={many} aria-activedescendant={place >= 0 && inRange(place, first, end, layout.columns) ? `${id}-${cursor}` : undefined}
      onScroll={onScroll} onKeyDown={onKeyDown} onClick={onClick} onPointerDown={onPointerDown} onPointerUp={endPress}
      onPointerCancel={endPress} onPointerMove={(event) => { if (Math.hypot(event.movementX, event.movementY) > 6) endPress(); }}
      onContextMenu={(event) => { if (own.pressed) event.preventDefault(); }} onPointerOver={onPointerOver}
      onPointerLeave={() => props.onHover?.(null)}
      onFocus={() => {
        setFocused(true);
        if (place < 0) setCursor(rows[firstSeen()] ?? null);
      }}
      onBlur={() => setFocused(false)}>
      {/* The frames are painted as a pattern, so that even what the browser shows before it asked the page is no void. */}
      <div class="grid-all" style={{
        height: `${layout.total}px`,
        backgroundImage: `linear-gradient(to bottom, transparent ${layout.height}px, var(--grid-ground) 0), linear-gradient(to right, var(--sunken) ${layout.width}px, transparent 0)`,
        backgroundSize: `100% ${layout.pitch}px, ${layout.width + gap}px 100%`,
      }}>{cells}</div>
    </div>
  );
}

const inRange = (place: number, first: number, end: number, columns: number) => place >= first * columns && place < end * columns;
const isTouch = (event: MouseEvent) => (event as PointerEvent).pointerType === "touch";

/** Place of a row; looked for at `near` first, because that is where it nearly always is. */
function placeOf(rows: ArrayLike<number>, row: number, near: number): number {
  return rows[near] === row ? near : Array.prototype.indexOf.call(rows, row);
}

interface CellProps {
  id: string;
  place: number;
  count: number;
  name: string;
  media: string;
  missing: boolean;
  x: number;
  y: number;
  width: number;
  height: number;
  large: boolean;
  whole: boolean;
  seen: boolean;
  wait: boolean;
  text: string | undefined;
  stored: string | undefined;
  kind: Caption["kind"] | undefined;
  probability: number | undefined;
  badge: string | undefined;
  tone: Badge["tone"] | undefined;
  why: string | undefined;
  chosen: boolean;
  many: boolean;
  current: boolean;
  cover: ComponentChildren;
}

/** One photo; drawn again only when something of it changed, because a scroll asks all of them. */
class Cell extends Component<CellProps, { bad: boolean; there: boolean }> {
  override state = { bad: false, there: false };
  private asked = false;
  private stop: (() => void) | null = null;

  /** A photo that could not be loaded is asked for once more when there is hope. */
  private failed = (): void => {
    const round = again.peek();
    this.setState({ bad: true });
    this.stop?.();
    this.stop = again.subscribe((now) => now !== round && this.setState({ bad: false, there: false }));
    askAgain();
  };

  override componentWillUnmount(): void {
    this.stop?.();
  }

  override shouldComponentUpdate(next: CellProps, state: { bad: boolean; there: boolean }): boolean {
    if (state.bad !== this.state.bad || state.there !== this.state.there) return true;
    for (const name in next) {
      // A photo that has been asked for stays, and its urgency does not matter any more.
      if ((name === "wait" || name === "seen") && (this.asked || next.wait)) continue;
      if (next[name as keyof CellProps] !== this.props[name as keyof CellProps]) return true;
    }
    return false;
  }

  override render(props: CellProps) {
    this.asked ||= !props.wait;
    const percent = props.probability === undefined ? "" : chance(props.probability);
    // Begins with the words that are seen, in their order, so that those who speak to their browser can say them.
    const told = [props.badge, props.text, percent].filter(Boolean).join(" ");
    return (
      <div id={props.id} role="option" class={`cell${props.current ? " cell-current" : ""}${props.chosen ? " cell-chosen" : ""}`}
        aria-selected={props.many ? props.chosen : undefined} aria-setsize={props.count} aria-posinset={props.place + 1}
        aria-label={`${told ? `${told}, ` : ""}${props.kind === "guess" ? "a guess, " : ""}${props.name}`} title={props.name} data-place={props.place}
        style={{ transform: `translate(${props.x}px, ${props.y}px)`, width: `${props.width}px` }}>
        <div class={`cell-frame${props.whole ? " cell-whole" : ""}`} data-file={fileName(props.name)} style={{ height: `${props.height}px` }}>
          {props.missing || this.state.bad
            ? <span class="cell-bad">{props.missing ? "File not found" : "Cannot be shown"}</span>
            : this.asked && (
              <img class={this.state.there ? "" : "cell-coming"} src={mediaUrl(props.media, props.large ? "medium" : "small")} alt="" decoding="async" draggable={false}
                fetchPriority={props.seen ? "high" : "low"}
                onLoad={() => this.setState({ there: true })} onError={this.failed} />
            )}
          {props.cover !== undefined && <div class="cell-cover" aria-hidden="true">{props.cover}</div>}
          {props.many && <span class="grid-ring" aria-hidden="true" />}
          {props.badge !== undefined && <span class={`cell-badge cell-badge-${props.tone ?? "plain"}`} title={props.why} aria-hidden="true">{props.badge}</span>}{" "}
        </div>
        {props.text !== undefined && (
          <div class={`cell-words cell-${props.kind}`} title={props.stored} aria-hidden="true">
            <span class="cell-text">{props.text}</span>{" "}{percent && <span class="cell-percent">{percent}</span>}
          </div>
        )}
      </div>
    );
  }
}

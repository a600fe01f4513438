// Keyboard shortcuts: registered where they work, listed in one help dialog, silent while somebody types.
import { signal } from "@preact/signals";
import { createContext } from "preact";
import { useContext, useLayoutEffect, useState } from "preact/hooks";

export interface Shortcut {
  /** As KeyboardEvent.key says it ("j", "Enter", "ArrowLeft", "?"), with "Ctrl+", "Shift+" or "Alt+" before it. */
  key: string;
  what: string;
  run: (event: KeyboardEvent) => void;
  /** Also while a text field has the focus. */
  always?: boolean;
  /** Also while a dialog is open that it does not belong to. */
  anywhere?: boolean;
  /** The dialog that it belongs to; set by `useShortcuts`. */
  layer?: number;
}

/** Shortcuts as the help lists them: what one view can comes first, and what several keys do stands in one line. */
export function listed(list: readonly Shortcut[]): { keys: string[]; what: string }[] {
  const found = new Map<string, { keys: string[]; what: string; rank: number }>();
  for (const one of list) {
    // "It is choice 1", "It is choice 2" … are one line.
    const what = /^\d$/.test(one.key) ? one.what.replace(/ \d+$/, "") : one.what;
    const line = found.get(what) ?? { keys: [], what, rank: one.anywhere || one.key.startsWith("Alt+") ? 1 : 0 };
    const key = written(one.key);
    if (!line.keys.includes(key)) line.keys.push(key);
    found.set(what, line);
  }
  return [...found.values()].sort((a, b) => a.rank - b.rank).map(({ keys, what }) => ({
    keys: keys.length > 2 && keys.every((key) => /^\d$/.test(key)) ? [`${keys[0]} – ${keys.at(-1)}`] : keys, what,
  }));
}

/** As the keyboard has it printed. */
function written(key: string): string {
  const arrows: Record<string, string> = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };
  const parts = key.split(/\+(?=.)/);
  const last = parts.pop()!;
  const shift = parts.includes("Ctrl") && last.length === 1 && last !== last.toLowerCase() ? ["Shift"] : [];
  return [...parts, ...shift, arrows[last] ?? (last.length === 1 ? last.toUpperCase() : last)].join(" + ");
}

/** The dialog around; 0: the page itself. */
export const Layer = createContext(0);
const open: number[] = [];
let layers = 0;
/** For a dialog: its layer, which alone hears the keys while it is open. Give it to what is inside by `Layer.Provider`. */
export function useLayer(): number {
  const [layer] = useState(() => (layers += 1));
  useLayoutEffect(() => {
    open.push(layer);
    return () => void open.splice(open.indexOf(layer), 1);
  }, []);
  return layer;
}

export const shortcuts = signal<readonly Shortcut[]>([]);

export function useShortcuts(list: readonly Shortcut[], again: readonly unknown[] = []): void {
  const layer = useContext(Layer);
  // At once: a key that is pressed as soon as something is seen must not be lost.
  useLayoutEffect(() => {
    const own = list.map((one) => ({ ...one, layer }));
    shortcuts.value = [...shortcuts.value, ...own];
    return () => {
      shortcuts.value = shortcuts.value.filter((one) => !(own as readonly Shortcut[]).includes(one));
    };
  }, again);
}

const typing = (target: EventTarget | null) =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)
    && !/^(checkbox|radio|range|button)$/.test((target as HTMLInputElement).type ?? ""));

export function named(event: KeyboardEvent): string {
  const shift = event.shiftKey && event.key.length > 1 ? "Shift+" : "";
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${shift}${event.key}`;
}

addEventListener("keydown", (event) => {
  const name = named(event);
  const busy = typing(event.target);
  const top = open.at(-1) ?? 0;
  // The newest first: what is on top answers.
  for (const one of [...shortcuts.value].reverse()) {
    if (one.key !== name || (busy && !one.always) || (one.layer !== top && !one.anywhere)) continue;
    event.preventDefault();
    one.run(event);
    return;
  }
});

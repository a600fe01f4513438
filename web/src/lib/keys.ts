// Keyboard shortcuts: registered where they work, listed in one help dialog, silent while somebody types.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

export interface Shortcut {
  /** As KeyboardEvent.key says it ("j", "Enter", "ArrowLeft", "?"), with "Ctrl+", "Shift+" or "Alt+" before it. */
  key: string;
  what: string;
  run: (event: KeyboardEvent) => void;
  /** Also while a text field has the focus. */
  always?: boolean;
}

export const shortcuts = signal<readonly Shortcut[]>([]);

export function useShortcuts(list: readonly Shortcut[], again: readonly unknown[] = []): void {
  useEffect(() => {
    shortcuts.value = [...shortcuts.value, ...list];
    return () => {
      shortcuts.value = shortcuts.value.filter((one) => !list.includes(one));
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
  // The newest first: what is on top answers.
  for (const one of [...shortcuts.value].reverse()) {
    if (one.key !== name || (busy && !one.always)) continue;
    event.preventDefault();
    one.run(event);
    return;
  }
});

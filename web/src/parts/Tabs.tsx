// Tabs: one of several things is shown; arrows go from one to the next.
import type { ComponentChildren } from "preact";
import "../styles/parts.css";

export interface Tab<T extends string> {
  id: T;
  name: ComponentChildren;
  class?: string;
}

export function Tabs<T extends string>(props: { label: string; tabs: readonly Tab<T>[]; now: T; onGo: (to: T) => void; panel?: string }) {
  function onKeyDown(event: KeyboardEvent): void {
    const at = props.tabs.findIndex((tab) => tab.id === props.now);
    const count = props.tabs.length;
    const to = { ArrowRight: (at + 1) % count, ArrowLeft: (at + count - 1) % count, Home: 0, End: count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    props.onGo(props.tabs[to]!.id);
    ((event.currentTarget as HTMLElement).children[to] as HTMLElement).focus();
  }
  return (
    <div class="tabs" role="tablist" aria-label={props.label} onKeyDown={onKeyDown}>
      {props.tabs.map((tab) => (
        <button key={tab.id} class={`tab ${tab.class ?? ""}`} role="tab" aria-selected={tab.id === props.now} aria-controls={props.panel}
          tabIndex={tab.id === props.now ? 0 : -1} onClick={() => props.onGo(tab.id)}>{tab.name}</button>
      ))}
    </div>
  );
}

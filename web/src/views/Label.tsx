// Label photos: what to label next, look-alikes to settle, labels that are probably wrong, and what was done.
import { useLayoutEffect, useRef } from "preact/hooks";
import { follow, query } from "../lib/router";
import { useGuesses } from "../state/guesses";
import { table } from "../state/library";
import "../styles/label.css";
import { History } from "./label/History";
import { Measures } from "./label/Measures";
import { Next } from "./label/Next";
import { Pairs } from "./label/Pairs";
import { Sure } from "./label/Sure";
import { Suspects } from "./label/Suspects";
import { Unknown } from "./label/Unknown";

const tabs = {
  next: { name: "Next", Tab: Next },
  sure: { name: "Many at once", Tab: Sure },
  pairs: { name: "Look-alikes", Tab: Pairs },
  suspects: { name: "Suspects", Tab: Suspects },
  unknown: { name: "Unknown", Tab: Unknown },
  history: { name: "History", Tab: History },
};
type TabName = keyof typeof tabs;

export function Label() {
  useGuesses();
  const asked = query.value.get("tab") ?? "next";
  const open: TabName = asked in tabs ? (asked as TabName) : "next";
  const { Tab } = tabs[open];
  const nav = useRef<HTMLElement>(null);
  // Where there is no room for all tabs, the open one is in sight.
  useLayoutEffect(() => nav.current!.querySelector("[aria-current]")!.scrollIntoView({ inline: "center", block: "nearest" }), [open]);
  return (
    <div class="label-view">
      <h1 class="hidden-text">Label</h1>
      <header class="label-head">
        <nav ref={nav} class="label-tabs" aria-label="Ways to label">
          {(Object.keys(tabs) as TabName[]).map((name) => (
            <a key={name} href={`/label?tab=${name}`} onClick={follow} aria-current={name === open ? "page" : undefined}>{tabs[name].name}</a>
          ))}
        </nav>
        <Measures />
      </header>
      <div class="label-body">{table.value ? <Tab key={open} /> : <p class="empty">Loading the photos…</p>}</div>
    </div>
  );
}

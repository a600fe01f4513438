// Look-alikes to settle: two kinds left and right, the doubtful photo between them.
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { wait } from "../../lib/api";
import { useShortcuts } from "../../lib/keys";
import { chance } from "../../lib/names";
import { tellError } from "../../lib/toast";
import { Empty } from "../../parts/Empty";
import { LabelBar } from "../../parts/LabelBar";
import { IconDown, IconLeft, IconRight, IconUndo } from "../../parts/labelIcons";
import { Photo } from "../../parts/Photo";
import { Progress } from "../../parts/Progress";
import { useSwipe } from "../../parts/useSwipe";
import type { Edit } from "../../state/edits";
import { setLabels, undo } from "../../state/labelling";
import { counts, labels, mayLabel, table } from "../../state/library";
import { nameOf } from "../../state/names";
import { stageSize } from "../../state/next";
import { Stage } from "./Stage";
import { TooFew } from "./TooFew";

interface Doubt {
  key: string;
  media: string;
  first: number;
  second: number;
  other: number;
}
interface Pair {
  first: string;
  second: string;
  photos: Doubt[];
  typical: { first: string[]; second: string[] };
}
const pairs = signal<readonly Pair[] | null>(null);
const aside = signal<ReadonlySet<string>>(new Set());
const idOf = (pair: Pair) => `${pair.first} | ${pair.second}`;

async function load(signal: AbortSignal): Promise<void> {
  try {
    pairs.value = (await wait<{ pairs: Pair[] }>("/api/v1/pairs", { count: 30 }, undefined, signal)).pairs;
  } catch (error) {
    tellError(error);
    pairs.value ??= [];
  }
}
const openOf = (pair: Pair) => pair.photos.filter((one) => {
  const row = table.value?.rowOf.get(one.key);
  return row !== undefined && labels.value[row] == null && !aside.value.has(one.key);
});

export function Pairs() {
  const [name, setName] = useState<string | null>(null);
  const [trail, setTrail] = useState<readonly { key: string; edit: Edit | null; pair: string }[]>([]);
  const [naming, setNaming] = useState(false);
  useEffect(() => {
    const own = new AbortController();
    void load(own.signal);
    return () => own.abort();
  }, []);
  const open = (pairs.value ?? []).map((pair) => ({ pair, left: openOf(pair) })).filter((one) => one.left.length);
  const now = open.find((one) => idOf(one.pair) === name) ?? open[0];
  const photo = now?.left[0];
  const row = photo ? table.value!.rowOf.get(photo.key)! : -1;

  function decide(label: string | null, done: Edit | null = null) {
    if (!photo || !now || (label !== null && !mayLabel.value)) return;
    if (label === null) aside.value = new Set([...aside.value, photo.key]);
    const edit = done ?? (label === null ? null : setLabels([row], label, true));
    setTrail([...trail, { key: photo.key, edit, pair: idOf(now.pair) }].slice(-100));
    setName(idOf(now.pair));
    setNaming(false);
  }
  function takeBack() {
    const last = trail.at(-1);
    if (!last) return;
    setTrail(trail.slice(0, -1));
    setName(last.pair);
    if (last.edit) undo(last.edit);
    else aside.value = new Set([...aside.value].filter((key) => key !== last.key));
  }
  useShortcuts([
    { key: "ArrowLeft", what: "It is the left one", run: () => decide(now?.pair.first ?? null) },
    { key: "ArrowRight", what: "It is the right one", run: () => decide(now?.pair.second ?? null) },
    { key: "ArrowDown", what: "Cannot tell", run: () => decide(null) },
    { key: "n", what: "Another kind: type a label", run: () => setNaming(true) },
    { key: "z", what: "Take the last one back", run: takeBack },
  ], [photo?.key, trail, mayLabel.value]);
  const swipe = useSwipe({ left: () => decide(now?.pair.first ?? null), right: () => decide(now?.pair.second ?? null) });
  useEffect(() => {
    for (const one of now?.left.slice(1, 3) ?? []) new Image().src = `/media/${one.media}/${stageSize()}`;
  }, [photo?.key]);

  if (!pairs.value) return <Progress working={null} what="Looking for photos that stand between two kinds" />;
  if (!photo || !now) {
    return counts.value.size < 2 ? <TooFew />
      : <Empty icon="check" title={pairs.value.length ? "All look-alikes are settled" : "Nothing to settle"}>{pairs.value.length ? "" : "No photo stands between two kinds."}</Empty>;
  }
  const side = (which: "first" | "second") => {
    const label = now.pair[which];
    return (
      <button class={`pair-side pair-${which}`} disabled={!mayLabel.value} onClick={() => decide(label)}>
        <span class="pair-name">{which === "first" && <IconLeft />}<span title={label}>{nameOf(label)}</span>{which === "second" && <IconRight />}</span>
        <span class="pair-chance small">{chance(photo[which])}</span>
        <span class="pair-photos">
          {now.pair.typical[which].slice(0, 6).map((key) => {
            const other = table.value!.rowOf.get(key);
            return other === undefined ? null : <Photo key={key} media={table.value!.media[other]!} alt={`A typical ${nameOf(label)}`} eager />;
          })}
        </span>
      </button>
    );
  };
  return (
    <div class="pairs">
      <label class="pairs-pick">
        <span class="faint small">Pair</span>
        <select class="field" value={idOf(now.pair)} onChange={(event) => setName(event.currentTarget.value)}>
          {open.map((one) => <option key={idOf(one.pair)} value={idOf(one.pair)}>{nameOf(one.pair.first)} or {nameOf(one.pair.second)} ({one.left.length})</option>)}
        </select>
        <span class="faint small">{now.left.length} to settle</span>
      </label>
      <div class="pairs-stage">
        {side("first")}
        <div class="pair-middle" {...swipe.handlers}>
          <div class="next-slide" style={swipe.moved ? { transform: `translateX(${swipe.moved * 0.6}px)` } : undefined}>
            <Stage key={photo.media} media={photo.media} alt={`Photo to settle: ${photo.key}`} size={stageSize()} />
          </div>
          {swipe.far && <span class="next-hint">{nameOf(swipe.moved < 0 ? now.pair.first : now.pair.second)}</span>}
        </div>
        {side("second")}
      </div>
      <div class="pairs-actions">
        {naming
          ? <LabelBar rows={[row]} focus quiet noNumbers onDone={(label, edit) => label !== null && decide(label, edit)} onLeave={() => setNaming(false)} />
          : (
            <>
              <span class="faint small pairs-keys"><kbd class="kbd">←</kbd> {nameOf(now.pair.first)}</span>
              <button class="button" onClick={() => decide(null)}><IconDown />Cannot tell</button>
              <button class="button" disabled={!mayLabel.value} onClick={() => setNaming(true)}><kbd class="kbd">N</kbd>Another kind…</button>
              <button class="button button-plain" disabled={!trail.length} onClick={takeBack}><IconUndo />Back <kbd class="kbd">Z</kbd></button>
              <span class="faint small pairs-keys">{nameOf(now.pair.second)} <kbd class="kbd">→</kbd></span>
            </>
          )}
      </div>
    </div>
  );
}

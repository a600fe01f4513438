// One photo after another: the one whose label helps most, with what it may be.
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { useShortcuts } from "../../lib/keys";
import { chance } from "../../lib/names";
import { follow } from "../../lib/router";
import { Empty } from "../../parts/Empty";
import { fileName } from "../../parts/Grid";
import { LabelBar } from "../../parts/LabelBar";
import { IconSkip, IconUndo } from "../../parts/labelIcons";
import { Photo } from "../../parts/Photo";
import { Progress } from "../../parts/Progress";
import { useSwipe } from "../../parts/useSwipe";
import { guesses } from "../../state/guesses";
import type { Edit } from "../../state/edits";
import { setLabels, undo } from "../../state/labelling";
import { mayLabel, labels, table } from "../../state/library";
import { nameOf } from "../../state/names";
import { back, choicesOf, exhausted, fill, hasSkipped, isCompared, loading, pass, queue, showSkipped, stageSize } from "../../state/next";
import { Stage } from "./Stage";

/** What was done in this visit, the last at the end; Z takes it back. */
const trail = signal<readonly { row: number; label: string | null; edit: Edit | null }[]>([]);

export function Next() {
  const [beside, setBeside] = useState<number | null>(null);
  const [naming, setNaming] = useState(false);
  useEffect(() => void fill(), [table.value?.snapshot]);
  // Somebody else may have labelled it meanwhile; the one that is just undone is open again.
  // While one types the photo stays, whatever others do.
  const pinned = useRef<number | null>(null);
  const row = naming && pinned.current !== null ? pinned.current : queue.value.find((one) => labels.value[one] == null);
  pinned.current = row ?? null;
  const choices = row === undefined ? [] : choicesOf(row);

  function move(label: string | null, edit: Edit | null = null) {
    if (row === undefined) return;
    trail.value = [...trail.value, { row, label, edit }].slice(-100);
    setBeside(null);
    setNaming(false);
    pass(row, label === null);
  }
  function accept(label: string | undefined) {
    if (row === undefined || label === undefined || !mayLabel.value) return;
    move(label, setLabels([row], label, true));
  }
  function takeBack() {
    const last = trail.value.at(-1);
    if (!last) return;
    trail.value = trail.value.slice(0, -1);
    if (last.edit) undo(last.edit);
    back(last.row);
  }
  useShortcuts([
    ...choices.slice(0, 9).map((one, index) => ({ key: String(index + 1), what: `It is choice ${index + 1}`, run: () => accept(one.label) })),
    { key: "Enter", what: "Accept the first choice", run: (event: KeyboardEvent) => (onButton(event) ? (event.target as HTMLElement).click() : accept(choices[0]?.label)) },
    { key: "s", what: "Skip this photo", run: () => move(null) },
    { key: "z", what: "Take the last one back", run: takeBack },
    { key: "n", what: "None of these: type a label", run: () => setNaming(true) },
    { key: "l", what: "None of these: type a label", run: () => setNaming(true) },
  ], [row, choices.map((one) => one.label).join("|"), mayLabel.value]);
  const swipe = useSwipe({ right: () => accept(choices[0]?.label), left: () => move(null) });

  if (row === undefined) {
    if (loading.value || !exhausted.value) return <Progress working={null} what="Looking for the photos whose labels help most" />;
    if (!table.value?.keys.length) return <Empty icon="photo" title="No photos yet">There is nothing to label.</Empty>;
    return (
      <Empty icon="check" title="Nothing more to ask">
        {hasSkipped.value ? "Every photo has a label, or was skipped." : "Every photo has a label."}
        {hasSkipped.value ? <button class="button" onClick={showSkipped}>Show the skipped ones</button>
          : <a class="button" href="/label?tab=suspects" onClick={follow}>Look at labels that may be wrong</a>}
      </Empty>
    );
  }
  const key = table.value!.keys[row]!;
  const media = table.value!.media[row]!;
  const last = trail.value.at(-1);
  const waiting = !choices.length && (!isCompared(row) || guesses.value === null);
  return (
    <div class={`next ${naming ? "next-naming" : ""}`}>
      <div class={`next-stage ${swipe.far ? "next-stage-far" : ""}`} {...swipe.handlers}>
        <div class="next-slide" style={swipe.moved ? { transform: `translateX(${swipe.moved * 0.6}px)` } : undefined}>
          <Stage key={media} media={media} alt={`Photo to label: ${key}`} size={stageSize()} />
        </div>
        {beside !== null && (
          <figure class="next-beside">
            <Stage media={table.value!.media[beside]!} alt={`${nameOf(labels.value[beside] ?? "")}, to compare`} size={stageSize()} />
            <figcaption>{nameOf(labels.value[beside] ?? "")}</figcaption>
          </figure>
        )}
        {swipe.far && <span class="next-hint">{swipe.moved > 0 ? choices[0] ? nameOf(choices[0].label) : "" : "Skip"}</span>}
      </div>
      <section class="next-side" aria-label="What it may be">
        <p class="next-last small" role="status">
          {last ? <><span class="faint">{last.label === null ? "Skipped" : "Labelled"} </span>{last.label !== null && nameOf(last.label)}</> : <span class="faint">{mayLabel.value ? "Which one is it?" : "Your token does not allow to label."}</span>}
        </p>
        {waiting && <div class="next-wait faint small" role="status">Comparing with labelled photos…</div>}
        {!waiting && !choices.length && <p class="faint">Nothing is labelled yet. Type what this is; after a few photos of two kinds the guesses begin.</p>}
        <ol class="next-choices">
          {choices.map((one, index) => (
            <li key={one.label} class="choice">
              <button class="choice-main" disabled={!mayLabel.value} onClick={() => accept(one.label)}>
                <kbd class="kbd">{index + 1}</kbd>
                <span class="choice-name" title={one.label}>{nameOf(one.label)}</span>
                <span class="choice-chance">{one.probability === undefined ? <span class="faint">looks alike</span> : chance(one.probability)}</span>
                <span class="choice-bar" aria-hidden="true"><span style={{ width: `${100 * (one.probability ?? 0)}%` }} /></span>
              </button>
              <div class="choice-photos">
                {one.rows.map((other) => (
                  <button key={other} class="choice-photo" aria-label={`Compare with a ${nameOf(one.label)}`} aria-pressed={beside === other}
                    onPointerEnter={(event) => event.pointerType === "mouse" && setBeside(other)} onPointerLeave={(event) => event.pointerType === "mouse" && setBeside(null)}
                    onClick={() => setBeside(beside === other ? null : other)}>
                    <Photo media={table.value!.media[other]!} alt="" eager />
                  </button>
                ))}
              </div>
            </li>
          ))}
        </ol>
        {naming || !waiting && !choices.length && mayLabel.value
          ? <LabelBar key={naming ? "asked" : `for ${row}`} rows={[row]} focus={naming} quiet noNumbers onDone={(label, edit) => label !== null && move(label, edit)} onLeave={() => setNaming(false)} />
          : null}
        {!naming && (
            <div class="next-actions">
              {choices.length > 0 && <button class="button" disabled={!mayLabel.value} onClick={() => setNaming(true)}><kbd class="kbd">N</kbd>Another…</button>}
              <button class="button" onClick={() => move(null)}><IconSkip />Skip <kbd class="kbd">S</kbd></button>
              <button class="button button-plain" disabled={!last} onClick={takeBack}><IconUndo />Back <kbd class="kbd">Z</kbd></button>
            </div>
        )}
        <p class="next-file faint small" title={key}>{fileName(key)}</p>
      </section>
    </div>
  );
}

const onButton = (event: KeyboardEvent) => event.target instanceof HTMLElement && /^(BUTTON|A|SUMMARY)$/.test(event.target.tagName);

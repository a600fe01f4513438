// Labels that are probably wrong: keep them, take what is suggested, or set another.
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { wait } from "../../lib/api";
import { useShortcuts } from "../../lib/keys";
import { plural } from "../../lib/names";
import { tellError } from "../../lib/toast";
import { fileName } from "../../parts/Grid";
import { Empty } from "../../parts/Empty";
import { LabelBar } from "../../parts/LabelBar";
import { IconLeft, IconRight } from "../../parts/labelIcons";
import { Photo } from "../../parts/Photo";
import { Progress } from "../../parts/Progress";
import { setLabels } from "../../state/labelling";
import { change, labels, library, mayLabel, table, versions } from "../../state/library";
import { nameOf } from "../../state/names";
import { stageSize } from "../../state/next";
import { Stage } from "./Stage";

interface Suspect {
  key: string;
  media: string;
  label: string;
  suggested: string;
  score: number;
}
const told = signal<{ judged: number; photos: Suspect[]; why?: string | null } | null>(null);
/** Labels that somebody here has looked at and kept: photo and version, so that a new label is judged anew. */
const kept = signal<ReadonlySet<string>>(new Set());
const EXAMPLES = 4;

const placeOf = () => `fieldmark-kept-labels/${library.value?.index ?? ""}`;
function readKept(): void {
  try {
    const list: unknown = JSON.parse(localStorage.getItem(placeOf()) ?? "[]");
    kept.value = new Set(Array.isArray(list) ? list.filter((one) => typeof one === "string") : []);
  } catch {
    kept.value = new Set();
  }
}
const mark = (row: number) => `${versions.value[row] ?? 0} ${table.value?.keys[row] ?? ""}`;

export function Suspects() {
  const [place, setPlace] = useState(0);
  const [naming, setNaming] = useState(false);
  const [asked, setAsked] = useState(change.peek());
  useEffect(() => {
    const own = new AbortController();
    readKept();
    wait<{ judged: number; photos: Suspect[]; why?: string | null }>("/api/v1/suspects", undefined, undefined, own.signal)
      .then((found) => (told.value = found)).catch(tellError);
    return () => own.abort();
  }, [asked]);
  const list = (told.value?.photos ?? []).filter((one) => {
    const row = table.value?.rowOf.get(one.key);
    return row !== undefined && labels.value[row] === one.label && !kept.value.has(mark(row));
  });
  const at = Math.max(0, Math.min(place, list.length - 1));
  const one = list[at];
  const row = one ? table.value!.rowOf.get(one.key)! : -1;

  function keep() {
    if (!one) return;
    kept.value = new Set([...kept.value, mark(row)]);
    localStorage.setItem(placeOf(), JSON.stringify([...kept.value].slice(-2000)));
  }
  function set(label: string) {
    if (one && mayLabel.value) setLabels([row], label, true);
    setNaming(false);
  }
  useShortcuts([
    { key: "k", what: "Keep the label", run: keep },
    { key: "t", what: "Take the suggestion", run: () => one && set(one.suggested) },
    { key: "n", what: "Another label", run: () => setNaming(true) },
    { key: "ArrowRight", what: "Next suspect", run: () => setPlace(Math.min(at + 1, list.length - 1)) },
    { key: "ArrowLeft", what: "Suspect before", run: () => setPlace(Math.max(at - 1, 0)) },
  ], [one?.key, at, list.length]);

  if (!told.value) return <Progress working={null} what="Judging each label by the photos around it" />;
  if (!one) {
    return (
      <Empty icon={told.value.judged ? "check" : "tag"} title={told.value.judged ? "No label looks wrong" : "Too few labels yet"}>
        {told.value.judged ? `${plural(told.value.judged, "label")} could be judged.` : "A label is judged by other photos of its kind and of others. Label a few photos of two kinds or more first."}
        {asked !== change.value && <button class="button" onClick={() => setAsked(change.value)}>Judge the labels as they are now</button>}
      </Empty>
    );
  }
  const examples = (label: string) => labels.value.flatMap((other, index) => (other === label && index !== row ? [index] : [])).slice(0, EXAMPLES);
  const card = (label: string, words: string, button: preact.JSX.Element) => (
    <section class="suspect-card" aria-label={`${words}: ${nameOf(label)}`}>
      <p class="faint small">{words}</p>
      <h2 title={label}>{nameOf(label)}</h2>
      <div class="suspect-examples">{examples(label).map((other) => <Photo key={other} media={table.value!.media[other]!} alt={`Another ${nameOf(label)}`} eager />)}</div>
      {button}
    </section>
  );
  return (
    <div class="suspects">
      <div class="suspect-stage"><Stage key={one.media} media={one.media} alt={`Suspect: ${one.key}`} size={stageSize()} /></div>
      <div class="suspect-side">
        <div class="row spread">
          <p class="faint small">{(at + 1).toLocaleString("en")} of {plural(list.length, "label")} that may be wrong, the likeliest first; {told.value.judged.toLocaleString("en")} were judged</p>
          <span class="row">
            <button class="button button-plain" aria-label="Suspect before" disabled={at === 0} onClick={() => setPlace(at - 1)}><IconLeft /></button>
            <button class="button button-plain" aria-label="Next suspect" disabled={at >= list.length - 1} onClick={() => setPlace(at + 1)}><IconRight /></button>
          </span>
        </div>
        {card(one.label, "It is labelled", <button class="button" onClick={keep}><kbd class="kbd">K</kbd>Keep it</button>)}
        {card(one.suggested, "It looks like", <button class="button button-main" disabled={!mayLabel.value} onClick={() => set(one.suggested)}><kbd class="kbd">T</kbd>Take this</button>)}
        {naming
          ? <LabelBar rows={[row]} focus quiet noNumbers onDone={() => setNaming(false)} onLeave={() => setNaming(false)} />
          : <button class="button" disabled={!mayLabel.value} onClick={() => setNaming(true)}><kbd class="kbd">N</kbd>Another label…</button>}
        <p class="next-file faint small" title={one.key}>{fileName(one.key)}</p>
      </div>
    </div>
  );
}

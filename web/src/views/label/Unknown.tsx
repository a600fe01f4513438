// Photos that seem to be of no kind that has a label yet.
import { useMemo } from "preact/hooks";
import { Grid, labelCaption } from "../../parts/Grid";
import { LabelBar } from "../../parts/LabelBar";
import { guesses, guessesOf } from "../../state/guesses";
import { labels, mayLabel, selection } from "../../state/library";

export function Unknown() {
  const told = guesses.value;
  const rows = useMemo(() => {
    const found = (told?.unknown ?? []).flatMap((one, row) => (one && labels.value[row] == null ? [row] : []));
    return found.sort((a, b) => told!.probability[a]! - told!.probability[b]!);
  }, [told, labels.value]);
  const picked = [...selection.value];
  if (!told) return <p class="empty" role="status">Looking for photos of no known kind…</p>;
  if (!told.unknown) return <p class="empty">{told.why ?? "It takes a few labelled photos of several kinds to tell what is of none of them."}</p>;
  if (!rows.length) return <p class="empty">Every photo looks like one of the kinds that have a label.</p>;
  return (
    <div class="bucket">
      <div class="bucket-bar">
        {picked.length > 0 && mayLabel.value
          ? <LabelBar rows={picked} onDone={() => (selection.value = new Set())} />
          : <p class="faint">{rows.length.toLocaleString("en")} photos are probably of no kind that has a label yet: a new kind, a bad photo, or another subject. Choose some to label them.</p>}
      </div>
      <div class="bucket-grid">
        <Grid rows={rows} of="unknown" name="Photos of no known kind" click="choose"
          caption={(row) => { const one = guessesOf(row)[0]; return one ? labelCaption(one.label, one.probability) : { text: "No guess", kind: "none" }; }} />
      </div>
    </div>
  );
}

// Photos that seem to be of no kind that has a label yet.
import { useMemo } from "preact/hooks";
import { Empty } from "../../parts/Empty";
import { Grid, labelCaption } from "../../parts/Grid";
import { LabelBar } from "../../parts/LabelBar";
import { Progress } from "../../parts/Progress";
import { guesses, guessesOf, whyNone } from "../../state/guesses";
import { labels, mayLabel, selection } from "../../state/library";
import { TooFew } from "./TooFew";

export function Unknown() {
  const told = guesses.value;
  const rows = useMemo(() => {
    const found = (told?.unknown ?? []).flatMap((one, row) => (one && labels.value[row] == null ? [row] : []));
    return found.sort((a, b) => told!.probability[a]! - told!.probability[b]!);
  }, [told, labels.value]);
  const picked = [...selection.value];
  if (!told) return <Progress working={null} what="Looking for photos of no known kind" />;
  if (whyNone() !== null) return <TooFew />;
  if (!told.unknown) return <Empty icon="tag" title="Too few labels yet">It takes some more labelled photos of each kind to tell what is of none of them.</Empty>;
  if (!rows.length) return <Empty icon="check" title="Nothing looks unknown">Every photo looks like one of the kinds that have a label.</Empty>;
  return (
    <div class="bucket">
      <div class="bucket-bar">
        {picked.length > 0 && mayLabel.value
          ? <LabelBar rows={picked} onDone={() => (selection.value = new Set())} />
          : <p class="faint">{rows.length === 1 ? "1 photo is" : `${rows.length.toLocaleString("en")} photos are`} probably of no kind that has a label yet: a new kind, a bad photo, or another subject. Choose some to label them.</p>}
      </div>
      <div class="bucket-grid">
        <Grid rows={rows} of="unknown" name="Photos of no known kind" click="choose"
          caption={(row) => { const one = guessesOf(row)[0]; return one ? labelCaption(one.label, one.probability) : { text: "No guess", kind: "none" }; }} />
      </div>
    </div>
  );
}

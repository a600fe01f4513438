// Photos that are like no other, or unlike the others of their label: often wrong labels, bad photos, rare kinds.
import { useMemo } from "preact/hooks";
import { Empty } from "../../parts/Empty";
import { Grid } from "../../parts/Grid";
import { Progress } from "../../parts/Progress";
import { table } from "../../state/library";
import { nameOf } from "../../state/names";
import { openPhoto } from "./FilterBar";
import { byLabel, captionOf, outliers, place, pointed, shown } from "./state";

export function Outliers() {
  const answer = outliers.value.value;
  const left = shown.value;
  const rows = useMemo(() => (answer?.rows ?? []).filter((row) => !left || left[row]), [answer, left]);
  const at = useMemo(() => new Map(answer?.rows.map((row, place) => [row, place])), [answer]);
  const columns = table.value;
  return (
    <div class="side-panel">
      <div class="side-head">
        <p>{byLabel.value
          ? "Photos least like the others of their own label: wrong labels, odd poses, bad photos."
          : "Photos least like any other: rare kinds, bad photos, things that do not belong here."}
          {answer && <> The usual value is {answer.usual.toFixed(2)}; higher is stranger.</>}
        </p>
        <div class="row" role="group" aria-label="Compared with">
          <button class="button" aria-pressed={!byLabel.value} onClick={() => place({ by: undefined })}>All photos</button>
          <button class="button" aria-pressed={byLabel.value} onClick={() => place({ by: "label" })}>Their label</button>
        </div>
      </div>
      <div class="side-rest">
        {outliers.error.value
          ? <Empty icon="outlier" alert title="They cannot be found">{outliers.error.value}<button class="button" onClick={outliers.again}>Try again</button></Empty>
          : !answer || !columns ? <Progress working={outliers.working.value} what="Comparing every photo with its neighbours" />
          : (
            <Grid rows={rows} name="Photos unlike others, the strangest first" of={`outliers ${byLabel.value}`} caption={captionOf} onOpen={(row) => openPhoto(columns.keys[row])}
              onHover={(row) => (pointed.value = row)} empty={<Empty icon="outlier" title="None that the filter leaves" />}
              badge={(row) => {
                const place = at.get(row)!;
                const near = answer.nearest[place];
                return { text: answer.scores[place]!.toFixed(2), title: near ? `Looks more like ${nameOf(near)}` : "How unlike others" };
              }} />
          )}
      </div>
    </div>
  );
}

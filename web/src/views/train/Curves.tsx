// The health of a run: one small chart for each measure, with what is healthy in colour and in words.
import { useMemo } from "preact/hooks";
import { Chart, type Series } from "../../parts/Chart";
import { curveOf, smoothed, type LogLine, type Point } from "../../state/runlog";
import type { Curve } from "../../state/runs";
import { healthOf } from "./health";

const ORDER = ["loss", "view_recall", "effective_rank", "feature_spread", "start_neighbours", "alignment", "feature_distance", "weight_distance", "uniformity"];

export function Curves(props: { curves: readonly Curve[]; lines: readonly LogLine[]; until: number; running: boolean }) {
  const curves = useMemo(() => [...props.curves].sort((a, b) => ORDER.indexOf(a.name) - ORDER.indexOf(b.name)), [props.curves]);
  const told = useMemo(() => new Map(curves.map((one) => [one.name, curveOf(props.lines, one.name)])), [curves, props.lines]);
  if (!props.lines.length) {
    return props.running ? <p class="faint run-section">The curves begin with the first step.</p> : null;
  }
  return (
    <section class="run-section" aria-label="Curves">
      <h3>Health over the epochs</h3>
      <p class="faint small">Measured without labels on photos kept aside. The tinted part is where healthy runs lay; these are rules of thumb, the verdict is not read from them.</p>
      <div class="curves">
        {curves.filter((one) => told.get(one.name)!.length).map((one) => (
          <OneCurve key={one.name} curve={one} points={told.get(one.name)!} until={props.until} />
        ))}
      </div>
    </section>
  );
}

function OneCurve({ curve, points, until }: { curve: Curve; points: readonly Point[]; until: number }) {
  const health = healthOf(curve, points);
  const series: Series[] = curve.name === "loss" && points.length > 20
    ? [{ name: "single steps", points, look: "faint" }, { name: "their mean", points: smoothed(points, Math.max(5, points.length / 60)) }]
    : [{ name: curve.label, points }];
  const show = (value: number) => (curve.share ? `${Number((100 * value).toFixed(1))} %` : String(Number(value.toPrecision(3))));
  return (
    <figure class="curve">
      <figcaption>
        <h4>{curve.label}</h4>
        {health.words && <span class={`curve-state curve-${health.state}`}>{health.words}</span>}
      </figcaption>
      <Chart name={curve.label} series={series} until={until} show={show} range={health.range} most={curve.share ? 1 : undefined} />
      <p class="faint small">{curve.explanation}</p>
    </figure>
  );
}

// A small line chart: axes, a healthy range, the value under the pointer. What it shows is also said in words beside it.
import { useEffect, useRef, useState } from "preact/hooks";
import { thinned, ticks, type Point } from "../state/runlog";
import "../styles/chart.css";

export interface Series {
  name: string;
  points: readonly Point[];
  /** `faint`: single steps behind their mean. */
  look?: "line" | "faint";
}

const H = 168;
const PAD = { left: 46, right: 12, top: 10, bottom: 26 };

export function Chart(props: {
  name: string;
  series: readonly Series[];
  /** The range of the horizontal axis, so that it does not move while a run goes on. */
  until: number;
  show: (value: number) => string;
  /** Where a healthy curve lies. */
  range?: { low?: number; high?: number } | null;
  /** The vertical axis begins at zero. */
  zero?: boolean;
  /** No value can be larger: nothing beyond is written on the axis. */
  most?: number | undefined;
}) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(360);
  const [at, setAt] = useState<number | null>(null);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.max(200, Math.floor(entry!.contentRect.width))));
    watch.observe(box.current!);
    return () => watch.disconnect();
  }, []);
  const drawn = props.series.filter((one) => one.points.length);
  const main = drawn.find((one) => one.look !== "faint") ?? drawn[0];
  // A wild first step must not flatten all the rest: faint points may leave the picture.
  const seen = drawn.flatMap((one) => (one.look === "faint" && drawn.length > 1 ? [] : one.points.map((point) => point[1])));
  let low = Math.min(...seen, ...(props.zero ? [0] : []));
  let high = Math.max(...seen);
  if (!(high > low)) [low, high] = [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
  const spare = (high - low) * 0.08;
  if (!props.zero || low < 0) low -= spare;
  high += spare;
  const x = (value: number) => PAD.left + (value / (props.until || 1)) * (width - PAD.left - PAD.right);
  const y = (value: number) => PAD.top + (1 - (value - low) / (high - low)) * (H - PAD.top - PAD.bottom);
  const line = (points: readonly Point[]) => thinned(points, width).map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
  const nearest = at === null || !main ? null : main.points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a), main.points[0]!);
  const inRange = (value: number) => Math.max(PAD.top, Math.min(H - PAD.bottom, y(value)));
  const id = `clip-${props.name.replace(/\W/g, "")}`;

  function look(event: PointerEvent) {
    const rect = (event.currentTarget as SVGElement).getBoundingClientRect();
    setAt(((event.clientX - rect.left - PAD.left) / (width - PAD.left - PAD.right)) * props.until);
  }
  if (!main) return <div ref={box} class="chart chart-empty faint small" style={{ height: `${H}px` }}>Not looked at yet</div>;
  return (
    <div ref={box} class="chart">
      <svg viewBox={`0 0 ${width} ${H}`} width={width} height={H} role="img"
        aria-label={`${props.name}: from ${props.show(main.points[0]![1])} to ${props.show(main.points.at(-1)![1])}`}
        onPointerMove={look} onPointerDown={look} onPointerLeave={() => setAt(null)}>
        <clipPath id={id}><rect x={PAD.left} y={PAD.top} width={width - PAD.left - PAD.right} height={H - PAD.top - PAD.bottom} /></clipPath>
        {props.range && (
          <rect class="chart-range" x={PAD.left} width={width - PAD.left - PAD.right}
            y={props.range.high === undefined ? PAD.top : inRange(props.range.high)}
            height={Math.max(0, (props.range.low === undefined ? H - PAD.bottom : inRange(props.range.low)) - (props.range.high === undefined ? PAD.top : inRange(props.range.high)))} />
        )}
        {ticks(low, high, 4).filter((value) => value <= (props.most ?? Infinity)).map((value) => (
          <g key={value}>
            <line class="chart-grid" x1={PAD.left} x2={width - PAD.right} y1={y(value)} y2={y(value)} />
            <text class="chart-text" x={PAD.left - 6} y={y(value) + 4} text-anchor="end">{props.show(value)}</text>
          </g>
        ))}
        {ticks(0, props.until, Math.min(6, width / 70)).map((value) => (
          <text key={value} class="chart-text" x={x(value)} y={H - 8} text-anchor="middle">{value}</text>
        ))}
        <g clip-path={`url(#${id})`}>
          {drawn.map((one) => <polyline key={one.name} class={`chart-line chart-${one.look ?? "line"}`} points={line(one.points)} />)}
        </g>
        {main.points.length < 40 && main.points.map(([a, b]) => <circle key={a} class="chart-dot" cx={x(a)} cy={y(b)} r="2.5" />)}
        {nearest && (
          <g>
            <line class="chart-at" x1={x(nearest[0])} x2={x(nearest[0])} y1={PAD.top} y2={H - PAD.bottom} />
            <circle class="chart-dot" cx={x(nearest[0])} cy={y(nearest[1])} r="4" />
          </g>
        )}
      </svg>
      <p class="chart-told small">
        {nearest
          ? <>Epoch {Number(nearest[0].toFixed(2))}: <strong>{props.show(nearest[1])}</strong></>
          : <span class="faint">{props.series.length > 1 ? props.series.map((one) => <span key={one.name} class="chart-legend"><svg width="18" height="8" aria-hidden="true"><line class={`chart-line chart-${one.look ?? "line"}`} x1="0" x2="18" y1="4" y2="4" /></svg>{one.name}</span>) : <>Last <strong>{props.show(main.points.at(-1)![1])}</strong></>}</span>}
      </p>
    </div>
  );
}

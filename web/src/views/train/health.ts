// Where a curve lies against its healthy range, which is told relative to the start's value.
import type { Point } from "../../state/runlog";
import type { Curve } from "../../state/runs";

export interface Health {
  range: { low?: number; high?: number } | null;
  state: "good" | "bad" | "none";
  words: string;
}

export function healthOf(curve: Pick<Curve, "low" | "high" | "absolute_low">, points: readonly Point[]): Health {
  const start = points[0]?.[1];
  const now = points.at(-1)?.[1];
  if (start === undefined || now === undefined) return { range: null, state: "none", words: "" };
  const low = curve.absolute_low ?? (curve.low === null ? undefined : curve.low * start);
  const high = curve.high === null ? undefined : curve.high * start;
  if (low === undefined && high === undefined) return { range: null, state: "none", words: "" };
  const range = { ...(low === undefined ? {} : { low }), ...(high === undefined ? {} : { high }) };
  if (low !== undefined && now < low) return { range, state: "bad", words: "below healthy" };
  if (high !== undefined && now > high) return { range, state: "bad", words: "above healthy" };
  return { range, state: "good", words: "healthy" };
}

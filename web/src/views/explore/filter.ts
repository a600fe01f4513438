// Which photos Explore shows: kept in the address, so that Back works and a link shows the same.
import type { Field } from "../../state/library";

export interface Filter {
  /** Text within file names and labels. */
  text: string;
  /** A label; "" means: without one; null: any. */
  label: string | null;
  /** Values of fields of the metadata, by name. */
  fields: ReadonlyMap<string, string>;
  /** A filter in the service's own language. */
  where: string;
  /** Places in the list of clusters; empty: any. */
  clusters: readonly number[];
}

const fieldPrefix = "f.";

export function readFilter(query: URLSearchParams): Filter {
  const fields = new Map<string, string>();
  for (const [name, value] of query) if (name.startsWith(fieldPrefix) && value) fields.set(name.slice(fieldPrefix.length), value);
  const clusters = query.get("cluster") ?? "";
  return {
    text: query.get("q") ?? "", label: query.get("label"), fields, where: query.get("where") ?? "",
    clusters: /^\d+(,\d+)*$/.test(clusters) ? clusters.split(",").map(Number) : [],
  };
}

export function writeFilter(filter: Filter): Record<string, string | undefined> {
  const told: Record<string, string | undefined> = {
    q: filter.text || undefined, label: filter.label ?? undefined, where: filter.where.trim() || undefined,
    cluster: filter.clusters.join(",") || undefined,
  };
  for (const [name, value] of filter.fields) told[fieldPrefix + name] = value;
  return told;
}

/** A field's name as the service's language wants it: in backquotes where it is no plain word. */
export function nameIn(field: string): string {
  const words = /^(and|or|not|in|is|null|true|false|contains)$/i;
  return /^[\p{L}_][\p{L}\p{N}_.:]*$/u.test(field) && !words.test(field) ? field : `\`${field}\``;
}

/** Text as the service's language wants it. */
export const textIn = (text: string): string => `"${text.replace(/\\/g, "\\\\").replace(/"/g, '\\"')}"`;

/** One value of a field as a condition. `3..5`, `3..` and `..5` are ranges of numbers; null: no number is meant. */
export function condition(field: Field, value: string): string | null {
  const name = nameIn(field.name);
  if (field.kind === "bool") return `${name} = ${value === "true"}`;
  if (field.kind === "text") return `${name} = ${textIn(value)}`;
  const range = /^\s*(-?[\d.]*)\s*(\.\.|–)\s*(-?[\d.]*)\s*$/.exec(value);
  const [low, high] = range ? [range[1]!, range[3]!] : [value.trim(), value.trim()];
  const numbers = [low, high].filter((part) => part !== "");
  if (!numbers.length || numbers.some((part) => !Number.isFinite(Number(part)))) return null;
  if (!range) return `${name} = ${Number(low)}`;
  return [low && `${name} >= ${Number(low)}`, high && `${name} <= ${Number(high)}`].filter(Boolean).join(" and ");
}

/** All that the service must look at, as one expression; "" for nothing. */
export function whereOf(filter: Filter, fields: readonly Field[]): string {
  const parts: string[] = [];
  for (const field of fields) {
    const value = filter.fields.get(field.name);
    const told = value === undefined ? null : condition(field, value);
    if (told) parts.push(told);
  }
  const own = filter.where.trim();
  if (own) parts.push(parts.length ? `(${own})` : own);
  return parts.join(" and ");
}

export interface Narrow {
  text: string;
  label: string | null;
  names: readonly string[];
  labels: readonly (string | null)[];
  /** Only these rows, each: the service's, the cluster's, the lasso's. */
  among: readonly (ReadonlySet<number> | null)[];
}

/** 1 for each row that everything allows; null where all are. `names` are in lower case. */
export function narrow({ text, label, names, labels, among }: Narrow): Uint8Array | null {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const sets = among.filter((set) => set !== null);
  if (!words.length && label === null && !sets.length) return null;
  const shown = new Uint8Array(names.length);
  for (let row = 0; row < names.length; row++) {
    const own = labels[row] ?? null;
    if (label !== null && (label === "" ? own !== null : own !== label)) continue;
    if (!sets.every((set) => set.has(row))) continue;
    if (words.length) {
      const all = own === null ? names[row]! : `${names[row]!} ${own.toLowerCase()}`;
      if (!words.every((word) => all.includes(word))) continue;
    }
    shown[row] = 1;
  }
  return shown;
}

export function rowsOf(shown: Uint8Array | null, count: number): Int32Array {
  if (!shown) return Int32Array.from({ length: count }, (_, row) => row);
  let at = 0;
  const rows = new Int32Array(shown.length);
  for (let row = 0; row < shown.length; row++) if (shown[row]) rows[at++] = row;
  return rows.subarray(0, at);
}

// The history in steps as people made them: one line for thirty photos that got one label in one go.
import type { LabelChange } from "../../state/library";

export interface Group {
  by: string;
  at: string;
  after: string | null;
  changes: LabelChange[];
}

const NEAR_MS = 2_000;
const near = (a: string, b: string) => Math.abs(Date.parse(a) - Date.parse(b)) <= NEAR_MS;

/** Groups of changes, the newest first, from changes in any order. */
export function groupsOf(changes: readonly LabelChange[]): Group[] {
  const seen = new Map(changes.map((one) => [one.number, one]));
  const groups: Group[] = [];
  for (const one of [...seen.values()].sort((a, b) => b.number - a.number)) {
    const last = groups.at(-1);
    if (last && last.by === one.by && last.after === one.after && near(last.at, one.at)) last.changes.push(one);
    else groups.push({ by: one.by, at: one.at, after: one.after, changes: [one] });
  }
  return groups;
}

/** What restoring a group sets, by key: only photos that still are as the group left them. */
export function restored(group: Group, labelOf: (key: string) => { label: string | null; version: number } | undefined): Map<string, string | null> {
  const wanted = new Map<string, string | null>();
  // The newest comes first: of a photo that is in the group twice the oldest "before" is meant.
  for (const one of group.changes) {
    const now = labelOf(one.key);
    if (now && (wanted.has(one.key) || (now.label === one.after && now.version === one.version))) wanted.set(one.key, one.before);
  }
  return wanted;
}

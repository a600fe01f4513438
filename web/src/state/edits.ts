// Labels on their way to the service: kept until acknowledged, sent one after another, taken back when refused.
import { ApiError, type Problem } from "../lib/api";

export type Label = string | null;

/** One photo of an edit. */
export interface Change {
  key: string;
  before: Label;
  after: Label;
  /** Version that the page showed when this was decided; AFTER_EARLIER: the one that an edit still waiting will make. */
  expected: number;
  /** What the service answered; not there while it waits. */
  version?: number;
}
/** What one person did in one go; the same object is in the queue and on the undo stack. */
export interface Edit {
  id: number;
  changes: Change[];
}
export interface Now {
  label: Label;
  version: number;
  by: string;
}
/** Somebody else was faster. */
export interface Conflict {
  key: string;
  mine: Label;
  now: Now;
}
export interface Known {
  label: Label;
  version: number;
}
export interface Around {
  known: (key: string) => Known | undefined;
  send: (labels: Record<string, Label>, expected: Record<string, number>) => Promise<{ change: number; versions: Record<string, number> }>;
  /** The service's truth about photos. */
  told: (changes: { key: string; after: Label; version: number }[], change: number) => void;
  /** Not taken: show again what it was. */
  takeBack: (changes: readonly Change[], error: unknown) => void;
  conflict: (conflicts: Conflict[]) => void;
  /** The queue is different now: show it, keep it. */
  changed: (waiting: readonly Edit[], reached: boolean) => void;
  pause: (ms: number) => Promise<unknown>;
}

export const AFTER_EARLIER = -1;
/** Photos in one request: the service bounds the size of a body. */
const AT_ONCE = 2_000;
const LONGEST_PAUSE = 15_000;

/** Whether the same request may do well later: the service is away, or has too much to do. */
const later = (problem: Problem | null) => problem !== null && (problem.status === 0 || problem.status === 503 || problem.status === 429);

export class LabelQueue {
  private waiting: Edit[] = [];
  private busy = false;
  private reached = true;
  private number = 0;

  constructor(private readonly around: Around) {}

  get edits(): readonly Edit[] {
    return this.waiting;
  }

  /** Take an edit in; null where every photo has that label already. */
  add(wanted: ReadonlyMap<string, Label>): Edit | null {
    const changes: Change[] = [];
    for (const [key, after] of wanted) {
      const known = this.around.known(key);
      if (!known || known.label === after) continue;
      const earlier = this.waiting.some((edit) => edit.changes.some((one) => one.key === key && one.version === undefined));
      changes.push({ key, before: known.label, after, expected: earlier ? AFTER_EARLIER : known.version });
    }
    if (!changes.length) return null;
    this.number += 1;
    const edit = { id: this.number, changes };
    this.waiting.push(edit);
    this.around.changed(this.waiting, this.reached);
    void this.flush();
    return edit;
  }

  /** Edits that were never acknowledged, from an earlier life of the page. */
  takeOver(edits: readonly Edit[]): void {
    for (const edit of edits) {
      const changes = edit.changes.filter((one) => one.version === undefined && this.around.known(one.key));
      if (!changes.length) continue;
      this.number += 1;
      this.waiting.push({ id: this.number, changes });
    }
    this.around.changed(this.waiting, this.reached);
    void this.flush();
  }

  async flush(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    let pause = 1_000;
    while (this.waiting.length) {
      const edit = this.waiting[0]!;
      const part = edit.changes.filter((one) => one.version === undefined).slice(0, AT_ONCE);
      if (!part.length) {
        this.waiting.shift();
        this.around.changed(this.waiting, this.reached);
        continue;
      }
      try {
        const answer = await this.around.send(
          Object.fromEntries(part.map((one) => [one.key, one.after])),
          Object.fromEntries(part.map((one) => [one.key, one.expected])),
        );
        this.reached = true;
        this.acknowledge(edit, part, answer);
        pause = 1_000;
      } catch (error) {
        const problem = error instanceof ApiError ? error.problem : null;
        if (later(problem)) {
          this.reached = false;
          this.around.changed(this.waiting, this.reached);
          await this.around.pause(pause);
          pause = Math.min(2 * pause, LONGEST_PAUSE);
          continue;
        }
        this.reached = true;
        if (!problem?.now || !this.collide(edit, part, problem.now)) this.refuse(edit, part, error);
      }
    }
    this.busy = false;
  }

  private acknowledge(edit: Edit, part: readonly Change[], answer: { change: number; versions: Record<string, number> }): void {
    for (const one of part) {
      one.version = answer.versions[one.key] ?? one.expected + 1;
      const next = this.after(edit, one.key)[0];
      if (next && next.expected === AFTER_EARLIER) next.expected = one.version;
    }
    this.around.told(part.map(({ key, after, version }) => ({ key, after, version: version! })), answer.change);
    this.around.changed(this.waiting, this.reached);
  }

  /** Take out what others changed meanwhile; the rest is sent again. False where nothing could be taken out. */
  private collide(edit: Edit, part: readonly Change[], now: Record<string, Now>): boolean {
    const hit = part.filter((one) => now[one.key]);
    const conflicts: Conflict[] = [];
    for (const one of hit) {
      const truth = now[one.key]!;
      const later = this.after(edit, one.key);
      if (truth.label === one.after) {
        // The same label by somebody else, or by us in a request whose answer was lost.
        one.version = truth.version;
        if (later[0]?.expected === AFTER_EARLIER) later[0].expected = truth.version;
        continue;
      }
      conflicts.push({ key: one.key, mine: (later.at(-1) ?? one).after, now: truth });
      for (const each of this.waiting) each.changes = each.changes.filter((other) => other.key !== one.key || other.version !== undefined);
    }
    this.around.told(hit.map((one) => ({ key: one.key, after: now[one.key]!.label, version: now[one.key]!.version })), 0);
    this.around.changed(this.waiting, this.reached);
    if (conflicts.length) this.around.conflict(conflicts);
    return hit.length > 0;
  }

  private refuse(edit: Edit, part: readonly Change[], error: unknown): void {
    const keys = new Set(part.map((one) => one.key));
    for (const each of this.waiting.slice(this.waiting.indexOf(edit))) {
      each.changes = each.changes.filter((one) => !keys.has(one.key) || one.version !== undefined);
    }
    this.around.takeBack(part, error);
    this.around.changed(this.waiting, this.reached);
  }

  /** What waits for a photo behind an edit. */
  private after(edit: Edit, key: string): Change[] {
    return this.waiting
      .slice(this.waiting.indexOf(edit) + 1)
      .flatMap((each) => each.changes.filter((one) => one.key === key && one.version === undefined));
  }
}

/** The labels that undo an edit, and how many photos somebody has changed since, which stay as they are. */
export function reversal(edit: Edit, known: Around["known"]): { wanted: Map<string, Label>; changedSince: number } {
  const wanted = new Map<string, Label>();
  let changedSince = 0;
  for (const one of edit.changes) {
    const now = known(one.key);
    const untouched = now?.label === one.after && (one.version === undefined || one.version === now.version);
    if (untouched) wanted.set(one.key, one.before);
    else changedSince += 1;
  }
  return { wanted, changedSince };
}

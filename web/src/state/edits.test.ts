// The queue of labels, against a service that can be away, slow, contradicted or unwilling.
import { describe, expect, it } from "vitest";
import { ApiError } from "../lib/api";
import { LabelQueue, reversal, type Change, type Conflict, type Edit, type Known, type Label, type Now } from "./edits";

const problem = (status: number, code: string, now?: Record<string, Now>) =>
  new ApiError({ status, code, detail: code, keys: [], ...(now ? { now } : {}) });

class Fake {
  service = new Map<string, Known & { by: string }>();
  page = new Map<string, Known>();
  sent: Record<string, Label>[] = [];
  failures: unknown[] = [];
  conflicts: Conflict[] = [];
  takenBack: Change[] = [];
  unreached = 0;
  kept: Edit[] = [];
  loseAnswer = false;
  gate: Promise<void> | null = null;
  queue = new LabelQueue({
    known: (key) => this.shown(key),
    send: async (labels, expected) => {
      await this.gate;
      this.sent.push(labels);
      const failure = this.failures.shift();
      if (failure) throw failure;
      const bad = Object.keys(labels).filter((key) => this.service.get(key)!.version !== expected[key]);
      if (bad.length) throw problem(409, "changed_meanwhile", Object.fromEntries(bad.map((key) => [key, this.service.get(key)!])));
      for (const [key, label] of Object.entries(labels)) this.set(key, label, "me");
      if (this.loseAnswer) {
        this.loseAnswer = false;
        throw problem(0, "unreachable");
      }
      return { change: 1, versions: Object.fromEntries(Object.keys(labels).map((key) => [key, this.service.get(key)!.version])) };
    },
    told: (changes) => changes.forEach((one) => this.page.set(one.key, { label: one.after, version: one.version })),
    takeBack: (changes) => this.takenBack.push(...changes),
    conflict: (conflicts) => this.conflicts.push(...conflicts),
    changed: (waiting, reached) => {
      if (!reached) this.unreached += 1;
      this.kept = structuredClone([...waiting]);
    },
    pause: () => Promise.resolve(),
  });
  constructor(...keys: string[]) {
    for (const key of keys) {
      this.service.set(key, { label: null, version: 1, by: "" });
      this.page.set(key, { label: null, version: 1 });
    }
  }
  shown(key: string): Known | undefined {
    const truth = this.page.get(key);
    const mine = this.queue.edits.flatMap((edit) => edit.changes).filter((one) => one.key === key && one.version === undefined).at(-1);
    return truth && mine ? { ...truth, label: mine.after } : truth;
  }
  set(key: string, label: Label, by: string): void {
    this.service.set(key, { label, version: this.service.get(key)!.version + 1, by });
  }
  want(label: Label, ...keys: string[]): Edit | null {
    return this.queue.add(new Map(keys.map((key) => [key, label])));
  }
  async settled(): Promise<void> {
    for (let i = 0; i < 50; i += 1) await Promise.resolve();
  }
  labels(): Label[] {
    return [...this.service.values()].map((one) => one.label);
  }
}

describe("labels on their way", () => {
  it("are sent with the version that was seen", async () => {
    const fake = new Fake("a", "b");
    fake.want("crow", "a", "b");
    await fake.settled();
    expect(fake.labels()).toEqual(["crow", "crow"]);
    expect(fake.page.get("a")).toEqual({ label: "crow", version: 2 });
    expect(fake.kept).toEqual([]);
  });

  it("are not sent where nothing changes", () => {
    expect(new Fake("a").want(null, "a")).toBeNull();
  });

  it("wait while the service is away, and none is lost", async () => {
    const fake = new Fake("a", "b");
    fake.failures = [problem(0, "unreachable"), problem(503, "busy"), problem(0, "unreachable")];
    fake.want("crow", "a");
    expect(fake.kept[0]!.changes[0]).toMatchObject({ key: "a", after: "crow" });
    fake.want("jay", "b");
    await fake.settled();
    expect(fake.unreached).toBe(3);
    expect(fake.labels()).toEqual(["crow", "jay"]);
  });

  it("are known again when only the answer was lost", async () => {
    const fake = new Fake("a");
    fake.loseAnswer = true;
    fake.want("crow", "a");
    await fake.settled();
    expect(fake.sent.length).toBe(2);
    expect(fake.conflicts).toEqual([]);
    expect(fake.service.get("a")).toMatchObject({ label: "crow", version: 2 });
  });

  it("build on an earlier one that still waits", async () => {
    const fake = new Fake("a");
    let open = () => {};
    fake.gate = new Promise((done) => (open = done));
    fake.want("crow", "a");
    fake.want("jay", "a");
    open();
    await fake.settled();
    expect(fake.sent).toEqual([{ a: "crow" }, { a: "jay" }]);
    expect(fake.service.get("a")).toMatchObject({ label: "jay", version: 3 });
    expect(fake.conflicts).toEqual([]);
  });

  it("give way to somebody who was faster, and the others are set all the same", async () => {
    const fake = new Fake("a", "b");
    fake.set("a", "raven", "Ada");
    fake.want("crow", "a", "b");
    await fake.settled();
    expect(fake.labels()).toEqual(["raven", "crow"]);
    expect(fake.conflicts).toEqual([{ key: "a", mine: "crow", now: { label: "raven", version: 2, by: "Ada" } }]);
    expect(fake.page.get("a")).toEqual({ label: "raven", version: 2 });
  });

  it("name what was wanted last where an edit and its follower collide", async () => {
    const fake = new Fake("a");
    let open = () => {};
    fake.gate = new Promise((done) => (open = done));
    fake.want("crow", "a");
    fake.want("jay", "a");
    fake.set("a", "raven", "Ada");
    open();
    await fake.settled();
    expect(fake.sent.length).toBe(1);
    expect(fake.conflicts.map((one) => one.mine)).toEqual(["jay"]);
    expect(fake.labels()).toEqual(["raven"]);
  });

  it("are taken back when refused, with what was built on them", async () => {
    const fake = new Fake("a", "b");
    let open = () => {};
    fake.gate = new Promise((done) => (open = done));
    fake.failures = [problem(403, "forbidden")];
    fake.want("crow", "a");
    fake.want("jay", "a", "b");
    open();
    await fake.settled();
    expect(fake.takenBack.map((one) => one.after)).toEqual(["crow"]);
    expect(fake.sent).toEqual([{ a: "crow" }, { b: "jay" }]);
    expect(fake.labels()).toEqual([null, "jay"]);
  });

  it("go on after the page was closed", async () => {
    const before = new Fake("a", "b");
    before.gate = new Promise(() => {});
    before.want("crow", "a");
    const after = new Fake("a");
    after.queue.takeOver([...before.kept, { id: 9, changes: [{ key: "gone", before: null, after: "x", expected: 1 }] }]);
    await after.settled();
    expect(after.labels()).toEqual(["crow"]);
  });

  it("are sent in parts that the service takes", async () => {
    const keys = Array.from({ length: 4_500 }, (_, i) => `k${i}`);
    const fake = new Fake(...keys);
    fake.want("crow", ...keys);
    await fake.settled();
    expect(fake.sent.map((one) => Object.keys(one).length)).toEqual([2_000, 2_000, 500]);
  });
});

describe("undo", () => {
  it("sets what was before", async () => {
    const fake = new Fake("a");
    const edit = fake.want("crow", "a")!;
    await fake.settled();
    expect(reversal(edit, (key) => fake.shown(key))).toEqual({ wanted: new Map([["a", null]]), changedSince: 0 });
  });

  it("leaves alone what others set since, even to the same label", async () => {
    const fake = new Fake("a", "b", "c");
    const edit = fake.want("crow", "a", "b", "c")!;
    await fake.settled();
    fake.page.set("a", { label: "raven", version: 3 });
    fake.page.set("b", { label: "crow", version: 4 });
    const found = reversal(edit, (key) => fake.shown(key));
    expect([...found.wanted.keys()]).toEqual(["c"]);
    expect(found.changedSince).toBe(2);
  });

  it("works for an edit that still waits", async () => {
    const fake = new Fake("a");
    let open = () => {};
    fake.gate = new Promise((done) => (open = done));
    const edit = fake.want("crow", "a")!;
    fake.queue.add(reversal(edit, (key) => fake.shown(key)).wanted);
    open();
    await fake.settled();
    expect(fake.service.get("a")).toMatchObject({ label: null, version: 3 });
  });
});

it("being away is told until the service answers, not taken back by the next label", async () => {
  const fake = new Fake("a", "b");
  const told: boolean[] = [];
  const around = (fake.queue as unknown as { around: { changed: (w: readonly Edit[], r: boolean) => void; pause: () => Promise<unknown> } }).around;
  around.changed = (_, reached) => told.push(reached);
  let again = () => {};
  around.pause = () => new Promise<void>((done) => (again = done));
  fake.failures = [problem(0, "unreachable")];
  fake.want("crow", "a");
  await fake.settled();
  fake.want("jay", "b");
  expect(told).toEqual([true, false, false]);
  again();
  await fake.settled();
  expect(told.at(-1)).toBe(true);
});

// The help: one line for what several keys do, the view's own first.
import { beforeAll, expect, it, vi } from "vitest";

beforeAll(() => vi.stubGlobal("addEventListener", () => undefined));

it("lists shortcuts as people read them", async () => {
  const { listed } = await import("./keys");
  const run = () => undefined;
  const lines = listed([
    { key: "Ctrl+z", what: "Undo", run, anywhere: true }, { key: "Ctrl+Z", what: "Redo", run, anywhere: true },
    { key: "Ctrl+y", what: "Redo", run, anywhere: true }, { key: "Alt+1", what: "Go to Explore", run },
    ...[1, 2, 3].map((number) => ({ key: String(number), what: `Choice ${number}`, run })),
    { key: "n", what: "Name it", run }, { key: "l", what: "Name it", run }, { key: "ArrowLeft", what: "Left", run }, { key: "?", what: "Help", run },
  ]);
  expect(lines).toEqual([
    { keys: ["1 – 3"], what: "Choice" }, { keys: ["N", "L"], what: "Name it" }, { keys: ["←"], what: "Left" }, { keys: ["?"], what: "Help" },
    { keys: ["Ctrl + Z"], what: "Undo" }, { keys: ["Ctrl + Shift + Z", "Ctrl + Y"], what: "Redo" }, { keys: ["Alt + 1"], what: "Go to Explore" },
  ]);
});

// Which labels are offered first, and which new ones are taken for slips.
import { describe, expect, it } from "vitest";
import { meant, meanGuess, nearlyTheSame, suggest } from "./suggest";

const counts = new Map([["Fish Crow", 9], ["American Crow", 20], ["Crested Auklet", 4], ["Blue Jay", 30]]);
const names = (typed: string, guessed = new Map<string, number>(), recent: string[] = []) =>
  suggest({ typed, guessed, recent, counts }).map((one) => one.label);

describe("suggestions", () => {
  it("offer guesses first, then what was used, then what has most photos", () => {
    expect(names("", new Map([["Crested Auklet", 0.3], ["Fish Crow", 0.6]]), ["New One"]))
      .toEqual(["Fish Crow", "Crested Auklet", "New One", "Blue Jay", "American Crow"]);
  });
  it("find by the beginning, by a word, and by words in any order", () => {
    expect(names("cr")).toEqual(["Crested Auklet", "American Crow", "Fish Crow"]);
    expect(names("crow fi")).toEqual(["Fish Crow"]);
    expect(names("zebra")).toEqual([]);
  });
  it("do not mind accents and case", () => {
    expect(suggest({ typed: "BLUE-J", guessed: new Map(), recent: [], counts: new Map([["Blüe Jay", 1]]) }).length).toBe(1);
  });
  it("are as many as asked for", () => {
    expect(suggest({ typed: "", guessed: new Map(), recent: [], counts, most: 2 }).length).toBe(2);
  });
});

describe("a new label", () => {
  it.each([["fish crow", "Fish Crow"], ["Fish  Crow ", "Fish Crow"], ["Fihs Crow", "Fish Crow"], ["American Corw", "American Crow"], ["Blue Jays", "Blue Jay"]])(
    "%s is nearly %s", (typed, known) => expect(nearlyTheSame(typed, counts.keys())).toBe(known));
  it.each(["Fish Crow", "Common Raven", "Jay", "Fish"])("%s is not a slip", (typed) => expect(nearlyTheSame(typed, counts.keys())).toBeNull());
  it("of few letters may differ by one", () => expect(nearlyTheSame("Tat", ["Cat"])).toBeNull());
  it("that is known exactly is no slip of another", () => expect(nearlyTheSame("Cats and dogs", ["Cats and dog", "Cats and dogs"])).toBeNull());
});

it("the mean guess of some photos", () => {
  const found = meanGuess([[{ label: "a", probability: 0.6 }, { label: "b", probability: 0.4 }], [{ label: "b", probability: 0.9 }, { label: "c", probability: 0.01 }]]);
  expect([...found.keys()]).toEqual(["b", "a"]);
  expect(found.get("b")).toBeCloseTo(0.65);
});

it("takes what a label reads for the label", () => {
  const known = new Map([["017.Cardinal", 3], ["018.Wren", 1], ["Wren", 1]]);
  expect(meant("cardinal ", known)).toBe("017.Cardinal");
  expect(meant("Wren", known)).toBe("Wren");
  expect(meant("wren", known)).toBeNull();
  expect(meant("Robin", known)).toBeNull();
  expect(nearlyTheSame("Cardinnal", known.keys())).toBe("017.Cardinal");
});

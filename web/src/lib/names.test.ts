// Names: labels as people write them, and texts that no filter can be broken with.
import { expect, it } from "vitest";
import { chance, fileOf, percent, plural, quoted, readable, score, shownNames, when } from "./names";

it("reads labels as people write them", () => {
  expect(readable("017.Cardinal")).toBe("Cardinal");
  expect(readable("Black_footed_Albatross")).toBe("Black footed Albatross");
  expect(readable("004.Groove_billed_Ani")).toBe("Groove billed Ani");
  expect(readable("007_Wren")).toBe("Wren");
  for (const label of ["10 mm bolt", "3-pole switch", "2012 Ford", "3.5mm jack", "2019"]) expect(readable(label)).toBe(label);
  expect(readable("_")).toBe("_");
});
it("keeps labels apart that read the same", () => {
  const shown = shownNames(["017.Cardinal", "018.cardinal", "Red_Wren", "019.Wren"]);
  expect([...shown.values()]).toEqual(["017.Cardinal", "018.cardinal", "Red Wren", "Wren"]);
});
it("writes shares", () => {
  expect([0, 0.5, 1].map(chance)).toEqual(["< 1 %", "50 %", "> 99 %"]);
  expect([0, 0.001, 0.005, 0.5, 0.994, 0.9999, 1].map(percent)).toEqual(["0 %", "< 1 %", "1 %", "50 %", "99 %", "> 99 %", "100 %"]);
});
it("tells the time of today, and the day of others", () => {
  const now = new Date(2026, 10, 23, 9, 5);
  expect(when(now.toISOString(), now)).toBe("09:05");
  expect(when(new Date(2026, 10, 22, 9, 5).toISOString(), now)).toContain("22 Nov 2026");
});
it("quotes texts for filters", () => expect(quoted('a "b" \\ c')).toBe('"a \\"b\\" \\\\ c"'));
it("names files", () => expect([fileOf("a/b/c.jpg"), fileOf("c.jpg")]).toEqual(["c.jpg", "c.jpg"]));
it("counts", () => expect([plural(1, "photo"), plural(1234, "photo")]).toEqual(["1 photo", "1,234 photos"]));
it("writes scores", () => expect([score(0.456), score(-0.04), score(-0.001)]).toEqual(["0.46", "−0.04", "0.00"]));

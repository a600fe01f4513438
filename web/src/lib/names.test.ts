// Names: labels as people write them, and texts that no filter can be broken with.
import { expect, it } from "vitest";
import { fileOf, plural, quoted, readable, score } from "./names";

it("reads labels as people write them", () => {
  expect(readable("017.Cardinal")).toBe("Cardinal");
  expect(readable("Black_footed_Albatross")).toBe("Black footed Albatross");
  expect(readable("2019")).toBe("2019");
  expect(readable("_")).toBe("_");
});
it("quotes texts for filters", () => expect(quoted('a "b" \\ c')).toBe('"a \\"b\\" \\\\ c"'));
it("names files", () => expect([fileOf("a/b/c.jpg"), fileOf("c.jpg")]).toEqual(["c.jpg", "c.jpg"]));
it("counts", () => expect([plural(1, "photo"), plural(1234, "photo")]).toEqual(["1 photo", "1,234 photos"]));
it("writes scores", () => expect([score(0.456), score(-0.04), score(-0.001)]).toEqual(["0.46", "−0.04", "0.00"]));

// Tests of the filter: address, the service's language, which rows are left.
import { describe, expect, it } from "vitest";
import type { Field } from "../../state/library";
import { condition, nameIn, narrow, readFilter, rowsOf, textIn, whereOf, writeFilter } from "./filter";

const sex: Field = { name: "sex", kind: "text", values: ["male"] };
const year: Field = { name: "year", kind: "number", values: [2020] };

describe("the address", () => {
  it("keeps everything, also 'no label'", () => {
    const query = new URLSearchParams({ q: "wren a", label: "", where: "year > 3", "f.sex": "male", cluster: "7,12" });
    const filter = readFilter(query);
    expect(filter).toEqual({ text: "wren a", label: "", fields: new Map([["sex", "male"]]), where: "year > 3", clusters: [7, 12] });
    expect(writeFilter(filter)).toEqual(Object.fromEntries(query));
  });
  it("is empty for no filter and takes no nonsense", () => {
    const filter = readFilter(new URLSearchParams({ cluster: "-1; drop" }));
    expect(filter.clusters).toEqual([]);
    expect(Object.values(writeFilter(filter)).every((value) => value === undefined)).toBe(true);
  });
});

describe("the service's language", () => {
  it("sets names and text apart", () => {
    expect(nameIn("site")).toBe("site");
    expect(nameIn("date taken")).toBe("`date taken`");
    expect(nameIn("in")).toBe("`in`");
    expect(textIn('a "b" \\ c')).toBe('"a \\"b\\" \\\\ c"');
  });
  it.each([["3", "year = 3"], ["3..5", "year >= 3 and year <= 5"], ["..5", "year <= 5"], ["-2..", "year >= -2"], ["x", null], ["..", null]])(
    "reads %s of a number", (value, told) => expect(condition(year, value)).toBe(told));
  it("puts the parts together, with the free one in brackets", () => {
    const filter = readFilter(new URLSearchParams({ "f.sex": "male", "f.gone": "x", where: "a = 1 or b = 2" }));
    expect(whereOf(filter, [sex, year])).toBe('sex = "male" and (a = 1 or b = 2)');
    expect(whereOf(filter, [year])).toBe("a = 1 or b = 2");
    expect(whereOf(readFilter(new URLSearchParams()), [sex])).toBe("");
    expect(condition({ name: "ringed", kind: "bool", values: [] }, "true")).toBe("ringed = true");
  });
});

describe("narrow", () => {
  const names = ["a/wren1.jpg", "a/robin2.jpg", "b/x.jpg"];
  const labels = ["Wren", null, "House wren"];
  const of = (told: Partial<Parameters<typeof narrow>[0]>) => {
    const shown = narrow({ text: "", label: null, names, labels, among: [], ...told });
    return shown && [...rowsOf(shown, 3)];
  };
  it("leaves all where nothing is asked", () => expect(of({})).toBeNull());
  it("looks for every word in name and label", () => {
    expect(of({ text: "WREN" })).toEqual([0, 2]);
    expect(of({ text: "wren b/" })).toEqual([2]);
  });
  it("takes a label, or none", () => {
    expect(of({ label: "Wren" })).toEqual([0]);
    expect(of({ label: "" })).toEqual([1]);
  });
  it("takes only what each set has", () => expect(of({ among: [new Set([0, 1]), null, new Set([1, 2])] })).toEqual([1]));
  it("counts all rows without a mask", () => expect([...rowsOf(null, 3)]).toEqual([0, 1, 2]));
});

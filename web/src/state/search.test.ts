// Addresses of searches: there and back, and what the service is asked.
import { afterEach, expect, it, vi } from "vitest";

vi.stubGlobal("location", { pathname: "/search", search: "" });
vi.stubGlobal("addEventListener", () => undefined);
const { address, bodyOf, filterOf, readAsked } = await import("./search");
afterEach(() => vi.restoreAllMocks());

const read = (text: string) => readAsked(new URLSearchParams(text));
const written = (told: Record<string, string | undefined>) =>
  new URLSearchParams(Object.entries(told).filter((one): one is [string, string] => one[1] !== undefined)).toString();

it("asks for nothing without a photo", () => expect(read("k=5")).toBeNull());
it.each([
  "key=a%2Fb.jpg",
  "query=00ff&region=0.1%2C0.2%2C0.3%2C0.4&k=96&label=A+%22b%22&where=year+%3E+2020",
  "key=x&unlabelled=",
])("comes back: %s", (text) => expect(written(address(read(text)!))).toBe(text));
it.each(["0", "201", "x", "1.5"])("takes the usual count for %s", (k) => expect(read(`key=a&k=${k}`)!.k).toBe(24));
it("joins what narrows the search, so that an or stays inside", () => {
  expect(filterOf(read('key=a&label=Wren&where=site = "x" or year > 3')!)).toBe('(label = "Wren") and (site = "x" or year > 3)');
  expect(filterOf(read("key=a&unlabelled=")!)).toBe("label is null");
  expect(filterOf(read("key=a")!)).toBeUndefined();
});
it("asks the service for the part that the address names", () => {
  expect(JSON.parse(JSON.stringify(bodyOf(read("key=a&region=0,0,0.5,1&k=12")!)))).toEqual({ key: "a", k: 12, region: [0, 0, 0.5, 1] });
});

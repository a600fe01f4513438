// Addresses of the page: a path for the view, a query string for what it shows, so that Back works and links can be shared.
import { computed, signal } from "@preact/signals";

export const views = ["explore", "search", "label", "species", "train"] as const;
export type View = (typeof views)[number];

const place = signal(location.pathname + location.search);
addEventListener("popstate", () => {
  place.value = location.pathname + location.search;
});

export const view = computed<View>(() => {
  const name = place.value.split("?")[0]!.split("/")[1] ?? "";
  return (views as readonly string[]).includes(name) ? (name as View) : "explore";
});
export const query = computed(() => new URLSearchParams(place.value.split("?")[1] ?? ""));

/** Go to a view; `replace` keeps it out of the history. */
export function go(to: View, told: Record<string, string | undefined> = {}, replace = false): void {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(told)) if (value !== undefined) search.set(name, value);
  const text = search.toString();
  const url = `/${to}${text ? `?${text}` : ""}`;
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  place.value = url;
}

/** For <a href> of the page's own views: plain clicks stay in the page. */
export function follow(event: MouseEvent): void {
  const link = (event.currentTarget as HTMLElement).closest("a");
  if (!link || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  place.value = location.pathname + location.search;
}

// Where a list was scrolled to when one left it; pages begin at their top.
import { useLayoutEffect } from "preact/hooks";

const places = new Map<string, number>();

/** Keep the place of the shell's main part under a name; `ready` once there is something to scroll. */
export function useScrollPlace(name: string, ready = true): void {
  useLayoutEffect(() => {
    const main = document.getElementById("main");
    if (!main || !ready) return;
    main.scrollTop = places.get(name) ?? 0;
    const keep = () => places.set(name, main.scrollTop);
    main.addEventListener("scroll", keep, { passive: true });
    return () => main.removeEventListener("scroll", keep);
  }, [name, ready]);
}

/** Begin at the top, whatever was shown before. */
export function useTop(of: string): void {
  useLayoutEffect(() => {
    document.getElementById("main")?.scrollTo(0, 0);
  }, [of]);
}

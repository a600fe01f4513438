// Labels as a field guide has them: typical photos, odd ones, look-alikes; asked once as long as the label's photos stay.
import { get } from "../lib/api";
import { counts } from "./library";

export interface Shown {
  key: string;
  media: string;
}
export interface Near {
  label: string;
  /** Cosine of the labels' middles, with what all photos share taken out, -1 to 1. */
  likeness: number;
  /** Share of held-out photos of either that were taken for the other; null where none were tested. */
  confused: number | null;
}
export interface Species {
  label: string;
  photos: number;
  typical: Shown[];
  odd: Shown[];
  nearest: Near[];
  /** Coarser names by rank, where the photos' metadata tell them. */
  taxonomy?: Record<string, string> | null;
}

const kept = new Map<string, Promise<Species>>();
const KEPT = 500;
/** Cards of a long list ask at once; the service has other things to do too. */
const AT_A_TIME = 3;
let running = 0;
const waiting: (() => void)[] = [];

async function ask(label: string): Promise<Species> {
  if (running >= AT_A_TIME) await new Promise<void>((go) => waiting.push(go));
  running += 1;
  try {
    return await get<Species>("/api/v1/species", { label });
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}

export const lacksMixUps = (told: Species): boolean => told.nearest.length > 0 && told.nearest.every((near) => near.confused === null);

export function speciesOf(label: string): Promise<Species> {
  const name = `${label}\n${counts.value.get(label) ?? 0}`;
  let found = kept.get(name);
  if (!found) {
    found = ask(label);
    kept.set(name, found);
    // Mix-ups are not known until the classifier is ready: what was told without them is asked again.
    found.then((told) => lacksMixUps(told) && kept.delete(name), () => kept.delete(name));
    if (kept.size > KEPT) kept.delete(kept.keys().next().value!);
  }
  return found;
}

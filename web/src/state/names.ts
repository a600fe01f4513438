// Labels as the page writes them everywhere; where one edits them, and in titles, they are as they are stored.
import { computed } from "@preact/signals";
import { readable, shownNames } from "../lib/names";
import { counts } from "./library";

const shown = computed(() => shownNames(counts.value.keys()));

export const nameOf = (label: string): string => shown.value.get(label) ?? readable(label);

// Unsent labels outlive the page: each tab keeps its own, and a new one takes over those of tabs that are gone.
import type { Edit } from "./edits";

const PREFIX = "fieldmark-unsent";
const tab = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const lockOf = (name: string) => `${PREFIX}-tab-${name}`;

// As long as this page lives it holds a lock by which other tabs know that its labels are being sent. Browsers give
// locks on https and on this machine only; elsewhere labels may be sent twice, which changes nothing.
if ("locks" in navigator) void navigator.locks.request(lockOf(tab), () => new Promise(() => {}));

export function keepUnsent(index: string, waiting: readonly Edit[]): void {
  const name = `${PREFIX}/${tab}/${index}`;
  const left = waiting.filter((edit) => edit.changes.some((one) => one.version === undefined));
  try {
    if (left.length) localStorage.setItem(name, JSON.stringify(left));
    else localStorage.removeItem(name);
  } catch {
    // The browser's room is full: the labels are still in the page, which warns before it is left.
  }
}

export async function takeOverUnsent(index: string): Promise<Edit[]> {
  const found: Edit[] = [];
  for (const name of Object.keys(localStorage)) {
    const [prefix, owner, ...of] = name.split("/");
    if (prefix !== PREFIX || !owner || owner === tab || of.join("/") !== index || !(await isGone(owner))) continue;
    found.push(...read(name));
    localStorage.removeItem(name);
  }
  return found;
}

async function isGone(owner: string): Promise<boolean> {
  if (!("locks" in navigator)) return true;
  return navigator.locks.request(lockOf(owner), { ifAvailable: true }, (lock) => lock !== null);
}

function read(name: string): Edit[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(name) ?? "[]");
    return Array.isArray(kept) ? (kept as Edit[]).filter((edit) => Array.isArray(edit.changes)) : [];
  } catch {
    return [];
  }
}

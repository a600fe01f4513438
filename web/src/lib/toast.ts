// Short messages at the edge of the page, read out to screen readers.
import { signal } from "@preact/signals";
import { ApiError } from "./api";

export interface Toast {
  id: number;
  text: string;
  tone: "plain" | "warn" | "bad";
  action?: { name: string; run: () => void };
}
export const toasts = signal<readonly Toast[]>([]);
let next = 1;

export function tell(text: string, tone: Toast["tone"] = "plain", action?: Toast["action"], seconds = tone === "plain" ? 5 : 9): void {
  const id = next++;
  toasts.value = [...toasts.value, { id, text, tone, ...(action ? { action } : {}) }].slice(-4);
  setTimeout(() => forget(id), seconds * 1000);
}
export function forget(id: number): void {
  toasts.value = toasts.value.filter((one) => one.id !== id);
}
/** Tell what went wrong in the service's own words; what was aborted on purpose is not told. */
export function tellError(error: unknown): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  tell(error instanceof ApiError ? error.problem.detail : `Something in the page failed: ${String(error)}`, "bad");
}

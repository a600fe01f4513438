// Sending a photo to look for: with progress, and with the service's own words where it does not take it.
import { ApiError, get } from "./api";
import { sentence } from "./names";

export interface Uploaded {
  query: string;
  width: number;
  height: number;
  notes: string[];
  damage: string | null;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const sizeOf = (bytes: number) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function failed(status: number, body: string, photo: Blob): ApiError {
  try {
    const told = JSON.parse(body) as { code?: string; detail?: string };
    if (told.detail) return new ApiError({ status, code: told.code ?? "failed", detail: told.detail, keys: [] });
  } catch {
    // A proxy before the service answers in its own form: said below.
  }
  const detail = status === 413
    ? `The photo has ${sizeOf(photo.size)}, more than the service takes.`
    : status === 0
      // A service that stops reading too large a body can cut the line before its answer arrives.
      ? `The photo (${sizeOf(photo.size)}) did not arrive: the service does not answer, or it is larger than the service takes.`
      : `The service answered ${status}.`;
  return new ApiError({ status, code: status === 413 ? "too_large" : "failed", detail, keys: [] });
}

/** What the service says, with words that help; code and detail are the service's own. */
export function refusal(error: unknown): string {
  if (!(error instanceof ApiError)) return `Something in the page failed: ${String(error)}`;
  const first = ({
    too_large: "This photo is too large. ",
    too_many_bytes: "This photo is too large. ",
    too_many_pixels: "This photo has too many pixels. ",
    format_not_allowed: "This is no photo that can be read. ",
    unsupported: "This kind of photo cannot be read here. ",
    broken: "This photo is damaged and cannot be read. ",
    empty: "This file is empty. ",
    busy: "The service has a lot to do; try again in a moment. ",
  } as Record<string, string>)[error.code] ?? "";
  return first + sentence(error.problem.detail);
}

/** Send it; `told` hears which share has gone out, 0 to 1. */
export async function upload(photo: Blob, told: (share: number) => void, signal: AbortSignal, tries = 0): Promise<Uploaded> {
  const { status, body, after } = await post(photo, told, signal);
  if (status === 401 && tries < 3) {
    // The shell asks for a token on any request that needs one.
    await get("/api/v1/me", undefined, signal);
    return upload(photo, told, signal, tries + 1);
  }
  if (status === 503 && after && tries < 4) {
    await pause(Math.min(5, Number(after) || 1) * 1000);
    signal.throwIfAborted();
    return upload(photo, told, signal, tries + 1);
  }
  if (status < 200 || status >= 300) throw failed(status, body, photo);
  return JSON.parse(body) as Uploaded;
}

function post(photo: Blob, told: (share: number) => void, signal: AbortSignal): Promise<{ status: number; body: string; after: string | null }> {
  return new Promise((resolve, reject) => {
    // fetch does not tell how much has been sent.
    const request = new XMLHttpRequest();
    request.open("POST", "/api/v1/queries");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => event.lengthComputable && told(event.loaded / event.total);
    request.onloadend = () => {
      signal.removeEventListener("abort", stop);
      if (signal.aborted) reject(signal.reason);
      else resolve({ status: request.status, body: request.responseText, after: request.getResponseHeader("Retry-After") });
    };
    const stop = () => request.abort();
    signal.addEventListener("abort", stop);
    request.send(photo);
  });
}

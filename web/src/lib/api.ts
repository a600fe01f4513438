// Everything that the page asks of the service goes through here.
import { sentence } from "./names";

export interface Problem {
  status: number;
  code: string;
  detail: string;
  keys: string[];
  now?: Record<string, { label: string | null; version: number; by: string }>;
}

/** An answer from 400 on, with the service's own words. */
export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
  get code(): string {
    return this.problem.code;
  }
}

/** The service is still computing; told again by `wait`. */
export interface Working {
  state: "working";
  done: number;
  total: number;
  what: string;
}

async function problemOf(answer: Response): Promise<ApiError> {
  try {
    const told = (await answer.json()) as Partial<Problem>;
    return new ApiError({
      status: answer.status,
      code: told.code ?? "failed",
      detail: told.detail ? sentence(told.detail) : `The service answered ${answer.status}.`,
      keys: told.keys ?? [],
      ...(told.now ? { now: told.now } : {}),
    });
  } catch {
    return new ApiError({
      status: answer.status, code: "failed", detail: `The service answered ${answer.status}.`, keys: [],
    });
  }
}

/** Called when the service wants a token; the shell asks for one and resolves. */
let askForToken: () => Promise<void> = () => Promise.resolve();
/** While it asks: whatever else lacks a token waits for the same answer. */
let asking: Promise<void> | null = null;
export function onTokenNeeded(ask: () => Promise<void>): void {
  askForToken = ask;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function send(path: string, init: RequestInit, tries = 0): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError({
      status: 0, code: "unreachable", detail: "The service does not answer; is it still running?", keys: [],
    });
  }
  if (answer.status === 401 && tries < 3) {
    asking ??= askForToken().finally(() => (asking = null));
    await asking;
    return send(path, init, tries + 1);
  }
  if (answer.status === 503 && tries < 4 && answer.headers.get("Retry-After")) {
    await pause(Math.min(5, Number(answer.headers.get("Retry-After")) || 1) * 1000);
    return send(path, init, tries + 1);
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

function withQuery(path: string, query: Record<string, unknown> = {}): string {
  const told = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === null) continue;
    for (const one of Array.isArray(value) ? value : [value]) told.append(name, String(one));
  }
  const text = told.toString();
  return text ? `${path}?${text}` : path;
}

export async function get<T>(path: string, query?: Record<string, unknown>, signal?: AbortSignal): Promise<T> {
  const answer = await send(withQuery(path, query), signal ? { signal } : {});
  return (await answer.json()) as T;
}

/** Ask until what is being computed is ready; `told` hears how far it is. */
export async function wait<T>(
  path: string, query?: Record<string, unknown>, told?: (working: Working) => void, signal?: AbortSignal,
): Promise<T> {
  for (;;) {
    const answer = await send(withQuery(path, query), signal ? { signal } : {});
    if (answer.status !== 202) return (await answer.json()) as T;
    told?.((await answer.json()) as Working);
    await pause(1000 * (Number(answer.headers.get("Retry-After")) || 1));
    signal?.throwIfAborted();
  }
}

export async function sendJson<T>(
  method: "POST" | "PUT" | "DELETE", path: string, body: unknown, signal?: AbortSignal,
): Promise<T> {
  const answer = await send(path, {
    method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, ...(signal ? { signal } : {}),
  });
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

/** Like `wait`, for jobs that are asked by POST. */
export async function sendJsonAndWait<T>(
  path: string, body: unknown, told?: (working: Working) => void, signal?: AbortSignal,
): Promise<T> {
  for (;;) {
    const answer = await send(path, {
      method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, ...(signal ? { signal } : {}),
    });
    if (answer.status !== 202) return (await answer.json()) as T;
    told?.((await answer.json()) as Working);
    await pause(1000 * (Number(answer.headers.get("Retry-After")) || 1));
    signal?.throwIfAborted();
  }
}

/** Send a photo as it is; the content decides what it is, not its name. */
export async function sendPhoto<T>(path: string, photo: Blob, query?: Record<string, unknown>, signal?: AbortSignal): Promise<T> {
  const answer = await send(withQuery(path, query), {
    method: "POST", body: photo, headers: { "Content-Type": "application/octet-stream" }, ...(signal ? { signal } : {}),
  });
  return (await answer.json()) as T;
}

/** End the browser's session; the page begins anew and asks for a token. */
export async function signOut(): Promise<void> {
  await send("/api/v1/session", { method: "DELETE" });
  location.reload();
}

export type Size = "small" | "medium" | "large";
export const mediaUrl = (media: string, size: Size): string => `/media/${media}/${size}`;

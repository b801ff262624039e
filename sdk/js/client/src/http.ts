/** Requests over HTTP to the same gateway. */

import { WatchoutError } from "./errors.js";

export interface Share {
  readonly id: string;
  /** The view-only token; only in the answer that made the share. */
  readonly token?: string;
  readonly [more: string]: unknown;
}

/**
 * Send one request; returns the decoded body, undefined when there is none.
 *
 * Rejects with a `WatchoutError`: the server's code, or `CONNECTION_LOST`.
 */
export async function request(
  fetcher: typeof fetch,
  url: string,
  token: string | null | undefined | false,
  init: { readonly method?: string; readonly body?: unknown; readonly signal?: AbortSignal | undefined },
): Promise<any> {
  const headers: Record<string, string> = {};
  if (token) headers["Authorization"] = `Bearer ${token}`;
  if (init.body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  try {
    response = await fetcher(url, {
      method: init.method ?? "GET",
      headers,
      credentials: token ? "omit" : "include",
      body: JSON.stringify(init.body),
      signal: init.signal ?? null,
    });
  } catch (cause) {
    throw new WatchoutError("CONNECTION_LOST", `no answer from ${url} (ALLOWED_ORIGINS?): ${cause}`, { retryable: true, cause });
  }
  const body = await response.json().catch(() => undefined);
  if (response.ok && (body !== undefined || response.status === 204)) return body;
  const error = body?.error ?? {};
  const retryable = response.status === 429 || response.status >= 500;
  throw new WatchoutError(error.code ?? `HTTP_${response.status}`, error.message ?? `${response.status} ${response.statusText}`, { retryable });
}

/** Requests over HTTP to the same gateway. */

import { WatchoutError } from "./errors.js";
import type { TokenKeeper } from "./tokens.js";

export interface Share {
  readonly id: string;
  /** The view-only token; only in the answer that made the share. */
  readonly token?: string;
  readonly [more: string]: unknown;
}

/**
 * Send one request; returns the decoded body, undefined when there is none. A token that is refused is replaced once.
 *
 * Rejects with a `WatchoutError`: the server's code, `CONNECTION_LOST`, or `TOKEN_UNAVAILABLE`.
 */
export async function request(
  fetcher: typeof fetch,
  url: string,
  tokens: TokenKeeper | undefined | false,
  init: { readonly method?: string; readonly body?: unknown; readonly signal?: AbortSignal | undefined },
): Promise<any> {
  const body = JSON.stringify(init.body);
  const ask = async (token: string | null | undefined | false): Promise<Response> => {
    const headers: Record<string, string> = {};
    if (token) headers["Authorization"] = `Bearer ${token}`;
    if (body) headers["Content-Type"] = "application/json";
    try {
      return await fetcher(url, { ...init, headers, credentials: token ? "omit" : "include", body } as RequestInit);
    } catch (cause) {
      throw new WatchoutError("CONNECTION_LOST", `no answer from ${url} (ALLOWED_ORIGINS?): ${cause}`, { retryable: true, cause });
    }
  };
  const token = tokens && (await tokens.get("connect"));
  let response = await ask(token);
  // A socket may have another one already. Without one, the refusal stands.
  const other = token && response.status === 401 && (await tokens.get("rejected", token).catch(() => undefined));
  if (other) response = await ask(other);
  const answer = await response.json().catch(() => undefined);
  if (response.ok && (answer !== undefined || response.status === 204)) return answer;
  const { status } = response;
  const { code = `HTTP_${status}`, message = `${url}: ${status}` } = answer?.error ?? {};
  throw new WatchoutError(code, message, { retryable: status === 429 || status >= 500 });
}

"use client";

/** Clients that outlive a remount: StrictMode, a fast refresh or a page that comes back finds the socket it had. */

import { Watchout, type TokenSource, type WatchoutOptions } from "@watchout/client/browser";

/** Everything of `Watchout`'s options but the token, which has a property of its own. */
export type ClientOptions = Omit<WatchoutOptions, "token">;

/** A client that nobody uses is closed after this. */
const KEEP_MS = 1_000;

export class Entry {
  readonly client: Watchout;
  readonly url: string;
  /** The newest token callback: a component makes another one for each render. */
  token: string | TokenSource | undefined;
  #users = 0;
  #isClosed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string, token: string | TokenSource | undefined, options: ClientOptions) {
    this.url = url;
    this.token = token;
    const ask: TokenSource = (why, context) =>
      typeof this.token === "function" ? this.token(why, context) : (this.token ?? null);
    const source = typeof token === "function" ? { token: ask } : token === undefined ? {} : { token };
    this.client = new Watchout(url, { ...options, ...source });
  }

  /** Nobody used it for a while: its component makes another one. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Let others find it; what is never used has no socket, and need not be closed. */
  offer(): void {
    entries.add(this);
    this.#timer = setTimeout(() => entries.delete(this), KEEP_MS);
  }

  /** Keep the client until the function that is returned is called. */
  retain(): () => void {
    this.#users += 1;
    clearTimeout(this.#timer);
    entries.add(this);
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      this.#users -= 1;
      if (this.#users > 0) return;
      this.#timer = setTimeout(() => {
        entries.delete(this);
        this.#isClosed = true;
        this.client.close();
      }, KEEP_MS);
    };
  }
}

const entries = new Set<Entry>();

/** The client of this url and token: one that is kept, or a new one, which connects when something needs it. */
export function entryFor(url: string, token: string | TokenSource | undefined, options: ClientOptions): Entry {
  const isPlain = Object.keys(options).length === 0;
  for (const entry of entries) {
    if (isPlain && entry.url === url && entry.token === token) return entry;
  }
  const entry = new Entry(url, token, options);
  if (isPlain && typeof window !== "undefined") entry.offer(); // a server renders it once and forgets it
  return entry;
}

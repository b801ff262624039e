"use client";

/** Clients that outlive a remount, so that StrictMode, a fast refresh or the back button keep the socket. */

import { Watchout, type TokenSource, type WatchoutOptions } from "@watchout/client/browser";

/** The options of `Watchout` without the token, which has a property of its own. */
export type ClientOptions = Omit<WatchoutOptions, "token">;

/** A client without users is closed after this time, in ms. */
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

  /** It was closed because it had no users: its component makes another one. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Offer it to other components; a client that is never used has no socket and need not be closed. */
  offer(): void {
    entries.add(this);
    this.#timer = setTimeout(() => entries.delete(this), KEEP_MS);
  }

  /** Keep the client until the returned function is called. */
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

/** Returns the client of this url and token: a kept one, or a new one, which connects when it is used. */
export function entryFor(url: string, token: string | TokenSource | undefined, options: ClientOptions): Entry {
  const isPlain = Object.keys(options).length === 0;
  for (const entry of entries) {
    if (isPlain && entry.url === url && entry.token === token) return entry;
  }
  const entry = new Entry(url, token, options);
  if (isPlain && typeof window !== "undefined") entry.offer(); // a server renders it once and keeps nothing
  return entry;
}

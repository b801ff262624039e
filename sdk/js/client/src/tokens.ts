/** The token of all sockets of one client: one call of the callback at a time, and another only when it is not valid any more. */

import { lifetimeOf } from "./core/jwt.js";
import { WatchoutError } from "./errors.js";
import type { Clock, TokenReason, TokenSource } from "./types.js";

/** A callback that has not returned counts as failed after this time, in ms. */
const CALLBACK_MS = 30_000;
/** A JWT that ends within this time is not used for a new connection, in ms. */
const SPARE_MS = 2_000;

export class TokenKeeper {
  private _current: string | undefined;
  private _flight: Promise<string | null> | undefined;
  private _controller: AbortController | undefined;

  constructor(
    private readonly _source: string | TokenSource,
    private readonly _kind: "token" | "ticket",
    private readonly _clock: Clock,
  ) {}

  get renewable(): boolean {
    return typeof this._source !== "string";
  }

  /**
   * Return a token that is not `used`. Rejects with a `WatchoutError`, which is retryable when asking again may help.
   *
   * @param used - A token that is not valid any more; undefined: none.
   */
  get(why: TokenReason, used?: string): Promise<string | null> {
    if (typeof this._source === "string") {
      if (used !== this._source) return Promise.resolve(this._source);
      const text = this._kind === "ticket" ? "a ticket works once: pass a callback" : "the token is not valid any more";
      return Promise.reject(new WatchoutError(this._kind === "ticket" ? "TICKET_USED" : "AUTH_FAILED", text));
    }
    if (this._flight === undefined && this._current !== undefined && this._current !== used && this._kind === "token") {
      const life = lifetimeOf(this._current);
      if (life === undefined || life.expiresAt - this._clock.wall() > SPARE_MS) return Promise.resolve(this._current);
      if (why === "connect") why = "expiring";
    }
    // A ticket is valid for one socket.
    if (this._flight !== undefined && this._kind === "ticket") return this._flight.then(() => this.get(why, used));
    this._flight ??= this._ask(this._source, why).finally(() => (this._flight = this._controller = undefined));
    return this._flight;
  }

  /** Stop waiting for the callback. */
  abort(): void {
    this._controller?.abort();
  }

  private _ask(source: TokenSource, why: TokenReason): Promise<string | null> {
    const controller = (this._controller = new AbortController());
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown): void =>
        reject(
          cause instanceof WatchoutError && !cause.retryable
            ? cause
            : new WatchoutError("TOKEN_UNAVAILABLE", `no token: ${cause}`, { retryable: true, cause }),
        );
      const cancel = this._clock.timer(() => controller.abort(), CALLBACK_MS);
      controller.signal.addEventListener("abort", () => fail("no answer"));
      // A callback that throws at once is the same as one that rejects.
      Promise.resolve()
        .then(() => source(why, { signal: controller.signal }))
        .then((token) => {
          this._current = token || undefined;
          resolve(token || null);
        }, fail)
        .finally(cancel);
      controller.signal.addEventListener("abort", cancel);
    });
  }
}

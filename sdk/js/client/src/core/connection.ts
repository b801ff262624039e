/** State machine of one socket: sign-in, renewal, watchdog, back-off. Pure: events and `now` in, commands out. */

import { WatchoutError, meaningOfClose } from "../errors.js";
import type { ClientMessage, ServerMessage } from "../messages.js";
import type { StateEvent, TokenReason } from "../types.js";
import { lifetimeOf } from "./jwt.js";

export type Command =
  /** Get a token (or ticket), and call `onToken` or `onTokenFailed`. `used`: the one that is not valid any more. */
  | { readonly do: "token"; readonly why: TokenReason; readonly used: string | undefined }
  /** Open a socket, and call `onOpen` and `onClose`. */
  | { readonly do: "open"; readonly ticket: string | undefined }
  | { readonly do: "send"; readonly message: ClientMessage }
  /** Close the socket, if there is one, and ignore its events. */
  | { readonly do: "drop"; readonly code: number }
  /** Signed in: subscribe or register now. */
  | { readonly do: "ready" }
  /** Requests that were sent on the socket will have no answer. */
  | { readonly do: "lost" }
  | { readonly do: "state"; readonly event: StateEvent }
  | { readonly do: "error"; readonly error: WatchoutError };

export interface ConnectionOptions {
  /** How the socket signs in. */
  readonly mode: "token" | "ticket" | "cookie";
  /** Whether the app may return another token: false when it gave one as a text. */
  readonly renewable: boolean;
  readonly silenceMs: number;
  readonly firstMs: number;
  readonly capMs: number;
  readonly stableMs: number;
  readonly random: () => number;
}

type Phase = "idle" | "token" | "opening" | "signing" | "ready" | "online" | "waiting" | "closed";

/** Longest time for a socket to open, in ms. */
const OPEN_MS = 15_000;
/** Deadline of the pong when the connection may be lost, in ms. */
const DOUBT_MS = 5_000;
/** Round trips are measured at most this often, in ms. */
const MEASURE_MS = 5_000;

export class Connection {
  /** Round trips in ms, newest last, at most ten. */
  readonly roundTrips: number[] = [];
  /** Time of the last message of the server, by the client's clock, and the server's clock minus the client's. */
  _heardAt = 0;
  _serverOffset: number | undefined;
  state: StateEvent = { state: "idle" };

  private _phase: Phase = "idle";
  private _token: string | undefined;
  private _attempt = 0;
  /** Refused or ended sessions since the last stable connection. */
  private _renewals = 0;
  private _why: TokenReason = "connect";
  private _onlineAt = 0;
  /** When the present phase ends: the socket did not open, the server was silent, or the next attempt is due. */
  private _due = Infinity;
  private _pingAt = Infinity;
  private _measureAt = Infinity;
  private _pingSentAt: number | undefined;
  /** The silence limit passed while this process did not run; only the next one counts. */
  private _doubtful = false;
  private _renewAt = Infinity;
  private _renewing: { readonly token: string; readonly requestId: string } | "asked" | undefined;
  private _lastError: { readonly code: string; readonly message: string } | undefined;
  private _requests = 0;

  constructor(
    private readonly _options: ConnectionOptions,
    private readonly _emit: (command: Command) => void,
  ) {}

  /** Whether messages may be sent. */
  get open(): boolean {
    return this._phase === "ready" || this._phase === "online";
  }

  /** Seconds of silence after which the server is asked to send a ping. */
  get pingEvery(): number {
    return Math.min(60, Math.max(5, Math.floor(this._options.silenceMs / 3000)));
  }

  /** The next time at which `tick` has something to do; Infinity: none. */
  get deadline(): number {
    return Math.min(this._due, this.open ? Math.min(this._pingAt, this._renewAt) : Infinity);
  }

  requestId(): string {
    return `r${++this._requests}`;
  }

  /** A socket is needed from now on. After a final close it starts anew. */
  start(now: number): void {
    if (this._phase !== "idle" && this._phase !== "closed") return;
    this._attempt = this._renewals = 0;
    this._why = "connect";
    this._connect(now);
  }

  /** No socket is needed any more. */
  stop(): void {
    if (this._phase !== "idle") this._leave({ state: "idle" });
  }

  /** Close for good. */
  close(reason: WatchoutError): void {
    this._leave({ state: "closed", reason });
  }

  onToken(token: string | null, now: number): void {
    if (this._renewing === "asked") {
      this._renewing = undefined;
      if (token === null || !this.open) return;
      if (token === this._token) return this._renewLater(now);
      this._renewing = { token, requestId: this.requestId() };
      const { requestId } = this._renewing;
      this._emit({ do: "send", message: { type: "auth", token, renew: true, requestId } });
      this._renewAt = now + this._options.silenceMs;
    } else if (this._phase === "token") {
      if (!token || (this._why === "ended" && token === this._token))
        return this.close(new WatchoutError(token ? "SESSION_ENDED" : "SIGNED_OUT", "there is no valid token: sign in"));
      this._token = token;
      this._why = "connect";
      this._openSocket(now);
    }
  }

  onTokenFailed(error: WatchoutError, now: number): void {
    if (this._renewing === "asked") {
      this._renewing = undefined;
      this._emit({ do: "error", error });
      this._renewLater(now);
    } else if (this._phase === "token") {
      if (error.retryable) this._wait(error, now);
      else this.close(error);
    }
  }

  onOpen(now: number): void {
    if (this._phase !== "opening") return;
    this._phase = "signing";
    this._heardAt = now;
    this._due = now + this._options.silenceMs;
    if (this._options.mode === "token" && this._token !== undefined)
      this._emit({ do: "send", message: { type: "auth", token: this._token, pingEvery: this.pingEvery } });
    // Without a token there is no answer to the upgrade: the first answer of the server tells whether it was accepted.
    else this._ping(now);
  }

  /** The subscriptions or the registration are confirmed. */
  onSession(now: number): void {
    if (this._phase !== "ready") return;
    this._phase = "online";
    this._onlineAt = now;
    this._say({ state: "online" });
  }

  /** Handle a message. Returns whether it was for the connection itself. */
  onMessage(message: ServerMessage | undefined, now: number): boolean {
    this._heardAt = now;
    this._doubtful = false;
    if (message?.type !== "error") this._lastError = undefined; // it went on after that error
    if (this._phase === "signing" || this.open) this._due = now + this._options.silenceMs;
    this._pingAt = Math.min(this._measureAt, now + this._options.silenceMs / 2);
    if (message === undefined) return false;
    if (message.type !== "video-frame" && message.type !== "alert" && message.type !== "ack" && message.timestamp > 0)
      this._serverOffset = message.timestamp - now;
    switch (message.type) {
      case "ping":
        return true;
      case "pong":
        this._onPong(now, true);
        return true;
      case "success":
        if (message.event !== "authenticated") return false;
        if (this._phase === "signing") this._signedIn(now);
        else if (typeof this._renewing === "object") {
          this._token = this._renewing.token;
          this._renewing = undefined;
          this._planRenewal(now);
        }
        return true;
      case "error":
        return this._onError(message, now);
      default:
        return false;
    }
  }

  /** The socket ended: `code` 0 when it could not be opened. */
  onClose(code: number, reason: string, now: number): void {
    if (this._phase === "waiting" || this._due === Infinity) return; // there is no socket
    const before = this._lastError;
    const broken = code < 1007 && code !== 1001;
    // The server's reason is the error's code; that of a proxy may be any text.
    const errorCode = before?.code ?? (/^[A-Z_]+$/.test(reason) ? reason : broken ? "CONNECTION_LOST" : `CLOSED_${code}`);
    const meaning = meaningOfClose(code, errorCode);
    const text = before?.message ?? (broken ? "the connection was lost" : `closed with ${code} ${reason}`);
    const error = new WatchoutError(errorCode, text, { retryable: meaning === "reconnect", closeCode: code || undefined });
    if (this._phase === "online" && now - this._onlineAt >= this._options.stableMs) this._attempt = this._renewals = 0;
    this._reset();
    if (meaning === "reconnect") this._wait(error, now);
    else if (meaning === "renew" && this._options.mode === "token" && this._options.renewable && this._renewals++ === 0) {
      this._why = code === 4500 ? "ended" : "rejected";
      this._connect(now);
    } else this.close(error);
  }

  /** Handle a report of the platform about network or app. */
  onPlatform(event: "online" | "offline" | "wake", now: number): void {
    if (this._phase === "waiting" && event !== "offline")
      this._due = Math.min(this._due, now + this._options.random() * Math.min(1000, this._options.firstMs));
    else if (this.open && !this._pingSentAt) this._doubt(now); // otherwise the pong of the ping under way shows it
  }

  tick(now: number): void {
    // A timer that is this late means that the machine slept or the process stood still; what arrived meanwhile is unread.
    if (this.open && now - this._due > 2000 && !this._doubtful) {
      this._doubtful = true;
      return this._doubt(now);
    }
    if (now >= this._due) {
      if (this._phase === "waiting") return this._connect(now);
      const open = this._phase !== "opening";
      const message = open ? `nothing came for ${this._options.silenceMs} ms` : "the socket did not open";
      this._emit({ do: "drop", code: 3008 });
      this._lastError = { code: open ? "NETWORK_SILENT" : "CONNECTION_LOST", message };
      return this.onClose(1006, "", now);
    }
    if (!this.open) return;
    if (now >= this._pingAt) this._ping(now);
    if (now >= this._renewAt) {
      this._renewAt = Infinity;
      this._renewing = "asked";
      this._emit({ do: "token", why: "expiring", used: this._token });
    }
  }

  private _connect(now: number): void {
    this._phase = "token";
    this._due = Infinity;
    this._say({ state: "connecting" });
    if (this._options.mode === "cookie") this._openSocket(now);
    else this._emit({ do: "token", why: this._why, used: this._why === "connect" && this._options.mode === "token" ? undefined : this._token });
  }

  private _openSocket(now: number): void {
    this._phase = "opening";
    this._due = now + OPEN_MS;
    this._emit({ do: "open", ticket: this._options.mode === "ticket" ? this._token : undefined });
  }

  private _signedIn(now: number): void {
    this._phase = "ready";
    this._why = "connect";
    this._lastError = undefined;
    if (this._options.mode === "token") this._planRenewal(now);
    this._emit({ do: "ready" });
    if (this._pingSentAt === undefined) this._ping(now);
  }

  private _onError(message: Extract<ServerMessage, { type: "error" }>, now: number): boolean {
    const { code, requestId, streamId } = message;
    if (code === "UNKNOWN_MESSAGE_TYPE" && this._pingSentAt !== undefined) {
      this._onPong(now, false);
      return true;
    }
    if (typeof this._renewing === "object" && (requestId === this._renewing.requestId || code === "ALREADY_AUTHENTICATED")) {
      this._renewing = undefined;
      // A server that cannot renew ends the session when it expires; then the new token is used.
      if (code === "ALREADY_AUTHENTICATED") this._renewAt = Infinity;
      else this._renewLater(now);
      this._emit({ do: "error", error: new WatchoutError(code, message.message, { retryable: true }) });
      return true;
    }
    if (requestId === undefined && streamId === undefined) this._lastError = message;
    if (code === "AUTH_REQUIRED" && this._phase === "signing") {
      this.close(new WatchoutError(code, `no token, no cookie: ${message.message}`));
      return true;
    }
    return this._phase === "signing";
  }

  private _onPong(now: number, modern: boolean): void {
    if (this._pingSentAt !== undefined && modern) {
      this.roundTrips.push(now - this._pingSentAt);
      if (this.roundTrips.length > 10) this.roundTrips.shift();
      this._measureAt = now + MEASURE_MS;
      this._pingAt = Math.min(this._pingAt, this._measureAt);
    }
    this._pingSentAt = undefined;
    if (this._phase === "signing") this._signedIn(now);
  }

  private _ping(now: number): void {
    this._pingSentAt = now;
    this._pingAt = this._measureAt = Infinity;
    this._emit({ do: "send", message: { type: "ping" } });
  }

  /** Send a ping to learn soon whether the connection is alive. */
  private _doubt(now: number): void {
    this._ping(now);
    this._due = now + Math.min(DOUBT_MS, this._options.silenceMs);
  }

  private _planRenewal(now: number): void {
    this._renewAt = Infinity;
    const life = this._token === undefined || !this._options.renewable ? undefined : lifetimeOf(this._token);
    if (life === undefined || this._serverOffset === undefined) return;
    this._renewAt = Math.max(now + 1000, life.expiresAt - this._serverOffset - life.leadMs);
  }

  private _renewLater(now: number): void {
    this._renewAt = now + (0.5 + this._options.random() / 2) * Math.min(this._options.capMs, 5000);
  }

  private _wait(reason: WatchoutError, now: number): void {
    // A gateway that others replace says "restart, reconnect now"; who is sent on again and again waits all the same.
    const soon = this._attempt < 8 && /reconnect now/.test(reason.message);
    const longest = Math.min(soon ? 100 : this._options.capMs, this._options.firstMs * 2 ** this._attempt++);
    const retryInMs = this._options.random() * longest;
    this._phase = "waiting";
    this._due = now + retryInMs;
    this._say({ state: "waiting", reason, retryInMs });
  }

  private _leave(event: StateEvent & { readonly state: "idle" | "closed" }): void {
    this._phase = event.state;
    this._emit({ do: "drop", code: 1000 });
    this._reset();
    this._say(event);
  }

  private _reset(): void {
    this._due = this._pingAt = this._measureAt = this._renewAt = Infinity;
    this._pingSentAt = this._renewing = this._lastError = undefined;
    this._doubtful = false;
    this.roundTrips.length = 0;
    this._emit({ do: "lost" });
  }

  private _say(event: StateEvent): void {
    if (event.state === this.state.state && event.reason === undefined) return;
    this.state = event;
    this._emit({ do: "state", event });
  }
}

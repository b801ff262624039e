/** State machine of one socket: sign-in, renewal, watchdog, back-off. Pure: events and `now` in, commands out. */

import { WatchoutError, meaningOfClose } from "../errors.js";
import type { ClientMessage, ServerMessage } from "../messages.js";
import type { StateEvent, TokenReason } from "../types.js";
import { lifetimeOf } from "./jwt.js";

export type Command =
  /** Ask for a token (or ticket); answer with `onToken` or `onTokenFailed`. `used`: the one that is no good any more. */
  | { readonly do: "token"; readonly why: TokenReason; readonly used: string | undefined }
  /** Open a socket; answer with `onOpen` and `onClose`. */
  | { readonly do: "open"; readonly ticket: string | undefined }
  | { readonly do: "send"; readonly message: ClientMessage }
  /** Close the socket and listen to it no more. */
  | { readonly do: "drop"; readonly code: number }
  /** Signed in: subscribe or register now. */
  | { readonly do: "ready" }
  /** What was sent on the socket is void. */
  | { readonly do: "lost" }
  | { readonly do: "state"; readonly event: StateEvent }
  | { readonly do: "error"; readonly error: WatchoutError };

export interface ConnectionOptions {
  /** How the socket signs in. */
  readonly mode: "token" | "ticket" | "cookie";
  /** Whether another token can be had: false for one that was given as a text. */
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
/** Time for an answer when there is a doubt about the connection, in ms. */
const DOUBT_MS = 5_000;
/** Round trips are measured at most this often, in ms. */
const MEASURE_MS = 10_000;

export class Connection {
  /** Round trips in ms, newest last, at most ten. */
  readonly roundTrips: number[] = [];
  /** The server answers request ids and pings (docs/protocol.md, "For client libraries"); undefined: not known yet. */
  modern: boolean | undefined;
  /** Time of the last message of the server, on the client's clock, and the server's clock less the client's. */
  heardAt = 0;
  serverOffset: number | undefined;
  state: StateEvent = { state: "idle" };

  private phase: Phase = "idle";
  private token: string | undefined;
  private attempt = 0;
  /** Refused or ended sessions since the last stable connection. */
  private renewals = 0;
  private why: TokenReason = "connect";
  private onlineAt = 0;
  /** When the phase gives up: the socket does not open, the server is silent, the next attempt is due. */
  private due = Infinity;
  private pingAt = Infinity;
  private pingSentAt: number | undefined;
  private renewAt = Infinity;
  private renewing: { readonly token: string; readonly requestId: string } | "asked" | undefined;
  private lastError: WatchoutError | undefined;
  private requests = 0;

  constructor(
    private readonly options: ConnectionOptions,
    private readonly emit: (command: Command) => void,
  ) {}

  /** Whether messages may be sent. */
  get open(): boolean {
    return this.phase === "ready" || this.phase === "online";
  }

  /** Seconds of silence after which the server is asked to send a ping. */
  get pingEvery(): number {
    return Math.min(60, Math.max(5, Math.floor(this.options.silenceMs / 3000)));
  }

  /** The next time at which `tick` has something to do; Infinity: none. */
  get deadline(): number {
    return Math.min(this.due, this.open ? Math.min(this.pingAt, this.renewAt) : Infinity);
  }

  requestId(): string {
    return `r${++this.requests}`;
  }

  /** A socket is needed from now on. After a final close it starts anew. */
  start(now: number): void {
    if (this.phase !== "idle" && this.phase !== "closed") return;
    this.attempt = this.renewals = 0;
    this.why = "connect";
    this.connect(now);
  }

  /** No socket is needed any more. */
  stop(): void {
    if (this.phase !== "closed") this.leave("idle", 1000);
  }

  /** It is over, whoever wants what. */
  close(reason: WatchoutError, code = 1000): void {
    this.leave("closed", code, { state: "closed", reason });
  }

  onToken(token: string | null, now: number): void {
    if (this.renewing === "asked") {
      this.renewing = undefined;
      if (token === null || !this.open) return;
      if (token === this.token) return this.renewLater(now);
      this.renewing = { token, requestId: this.requestId() };
      const { requestId } = this.renewing;
      this.emit({ do: "send", message: { type: "auth", token, renew: true, requestId } });
      this.renewAt = now + this.options.silenceMs;
    } else if (this.phase === "token") {
      if (!token) return this.fail(new WatchoutError("SIGNED_OUT", "there is no token: sign in"));
      if (this.why === "ended" && token === this.token)
        return this.fail(new WatchoutError("SESSION_ENDED", "the session has ended, and there is no other token"));
      this.token = token;
      this.why = "connect";
      this.openSocket(now);
    }
  }

  onTokenFailed(cause: unknown, now: number): void {
    const final = cause instanceof WatchoutError && !cause.retryable;
    const error = final ? cause : new WatchoutError("TOKEN_UNAVAILABLE", `no token: ${String(cause)}`, { retryable: true, cause });
    if (this.renewing === "asked") {
      this.renewing = undefined;
      this.emit({ do: "error", error });
      this.renewLater(now);
    } else if (this.phase === "token") {
      if (final) this.fail(error);
      else this.wait(error, now);
    }
  }

  onOpen(now: number): void {
    if (this.phase !== "opening") return;
    this.phase = "signing";
    this.heardAt = now;
    this.due = now + this.options.silenceMs;
    if (this.options.mode === "token" && this.token !== undefined)
      this.emit({ do: "send", message: { type: "auth", token: this.token, pingEvery: this.pingEvery } });
    // Without a token there is no answer to the upgrade: the first answer of the server tells whether it was accepted.
    else this.ping(now);
  }

  /** The subscriptions or the registration stand. */
  onSession(now: number): void {
    if (this.phase !== "ready") return;
    this.phase = "online";
    this.onlineAt = now;
    this.say({ state: "online" });
  }

  /** Something arrived. Returns whether the connection itself dealt with it. */
  onMessage(message: ServerMessage | undefined, now: number): boolean {
    this.heardAt = now;
    if (this.phase === "signing" || this.open) this.due = now + this.options.silenceMs;
    this.pingAt = now + this.options.silenceMs / 2;
    if (message === undefined) return false;
    if (message.type !== "video-frame" && message.type !== "alert" && message.type !== "ack")
      this.serverOffset = message.timestamp - now;
    switch (message.type) {
      case "ping":
        return true;
      case "pong":
        this.onPong(now, true);
        return true;
      case "success":
        if (message.requestId !== undefined) this.modern = true;
        if (message.event !== "authenticated") return false;
        if (this.phase === "signing") this.signedIn(now);
        else if (typeof this.renewing === "object") {
          this.token = this.renewing.token;
          this.renewing = undefined;
          this.planRenewal(now);
        }
        return true;
      case "error":
        return this.onError(message, now);
      default:
        return false;
    }
  }

  /** The socket ended: `code` 0 when it could not be opened. */
  onClose(code: number, reason: string, now: number): void {
    if (this.phase === "idle" || this.phase === "closed" || this.phase === "waiting" || this.phase === "token") return;
    const before = this.lastError;
    const errorCode = before?.code ?? (reason || (code === 4500 ? "SESSION_ENDED" : code === 4501 ? "STREAM_TAKEN_OVER" : "CONNECTION_LOST"));
    const meaning = meaningOfClose(code, errorCode);
    const text = before?.message ?? (code > 1006 || code === 1001 ? `the server closed with ${code} ${reason}`.trim() : "the connection was lost");
    const error = new WatchoutError(errorCode, text, { retryable: meaning !== "stop", closeCode: code || undefined });
    if (this.phase === "online" && now - this.onlineAt >= this.options.stableMs) this.attempt = this.renewals = 0;
    this.reset();
    if (meaning === "reconnect") this.wait(error, now);
    else if (meaning === "renew" && this.options.mode === "token" && this.options.renewable && this.renewals++ === 0) {
      this.why = code === 4500 ? "ended" : "rejected";
      this.connect(now);
    } else this.fail(new WatchoutError(error.code, error.message, { closeCode: code }));
  }

  /** The platform reports something about network or app. */
  onPlatform(event: "online" | "offline" | "wake", now: number): void {
    if (this.phase === "waiting" && event !== "offline")
      this.due = Math.min(this.due, now + this.options.random() * Math.min(1000, this.options.firstMs));
    else if (this.open) this.doubt(now);
  }

  tick(now: number): void {
    // A timer that is this late: the machine slept, or the process stood still. What came meanwhile is still unread.
    if (this.open && now - this.deadline > 2000 && this.due <= now) return this.doubt(now);
    if (now >= this.due) {
      if (this.phase === "waiting") return this.connect(now);
      const open = this.phase !== "opening";
      const text = open ? `nothing came from the server for ${this.options.silenceMs} ms` : "the socket did not open";
      this.emit({ do: "drop", code: 3008 });
      this.lastError = new WatchoutError(open ? "NETWORK_SILENT" : "CONNECTION_LOST", text, { retryable: true });
      return this.onClose(1006, "", now);
    }
    if (!this.open) return;
    if (now >= this.pingAt) this.ping(now);
    if (now >= this.renewAt) {
      this.renewAt = Infinity;
      this.renewing = "asked";
      this.emit({ do: "token", why: "expiring", used: this.token });
    }
  }

  private connect(now: number): void {
    this.phase = "token";
    this.due = Infinity;
    this.say({ state: "connecting" });
    if (this.options.mode === "cookie") this.openSocket(now);
    else this.emit({ do: "token", why: this.why, used: this.why === "connect" && this.options.mode === "token" ? undefined : this.token });
  }

  private openSocket(now: number): void {
    this.phase = "opening";
    this.due = now + OPEN_MS;
    this.emit({ do: "open", ticket: this.options.mode === "ticket" ? this.token : undefined });
  }

  private signedIn(now: number): void {
    this.phase = "ready";
    this.why = "connect";
    this.lastError = undefined;
    if (this.options.mode === "token") this.planRenewal(now);
    this.emit({ do: "ready" });
    if (this.pingSentAt === undefined) this.ping(now);
  }

  private onError(message: Extract<ServerMessage, { type: "error" }>, now: number): boolean {
    const { code, requestId, streamId } = message;
    if (requestId !== undefined) this.modern = true;
    if (code === "UNKNOWN_MESSAGE_TYPE" && this.pingSentAt !== undefined) {
      this.onPong(now, false);
      return true;
    }
    if (typeof this.renewing === "object" && (requestId === this.renewing.requestId || code === "ALREADY_AUTHENTICATED")) {
      this.renewing = undefined;
      // A server that cannot renew ends the session in its time: the new token is used then.
      if (code === "ALREADY_AUTHENTICATED") this.renewAt = Infinity;
      else this.renewLater(now);
      this.emit({ do: "error", error: new WatchoutError(code, message.message, { retryable: true }) });
      return true;
    }
    if (requestId === undefined && streamId === undefined) this.lastError = new WatchoutError(code, message.message, { retryable: true });
    if (code === "AUTH_REQUIRED" && this.phase === "signing") {
      this.fail(new WatchoutError(code, message.message));
      return true;
    }
    return this.phase === "signing";
  }

  private onPong(now: number, modern: boolean): void {
    this.modern ??= modern;
    if (this.pingSentAt !== undefined && modern) {
      this.roundTrips.push(now - this.pingSentAt);
      if (this.roundTrips.length > 10) this.roundTrips.shift();
      this.pingAt = Math.min(this.pingAt, now + MEASURE_MS);
    }
    this.pingSentAt = undefined;
    if (this.phase === "signing") this.signedIn(now);
  }

  private ping(now: number): void {
    this.pingSentAt = now;
    this.pingAt = Infinity;
    this.emit({ do: "send", message: { type: "ping" } });
  }

  /** Find out soon whether the connection still stands. */
  private doubt(now: number): void {
    this.ping(now);
    this.due = now + Math.min(DOUBT_MS, this.options.silenceMs);
  }

  private planRenewal(now: number): void {
    this.renewAt = Infinity;
    const life = this.token === undefined || !this.options.renewable ? undefined : lifetimeOf(this.token);
    if (life === undefined || this.serverOffset === undefined) return;
    this.renewAt = Math.max(now + 1000, life.expiresAt - this.serverOffset - life.leadMs);
  }

  private renewLater(now: number): void {
    this.renewAt = now + (0.5 + this.options.random() / 2) * Math.min(this.options.capMs, 5000);
  }

  private wait(reason: WatchoutError, now: number): void {
    const longest = Math.min(this.options.capMs, this.options.firstMs * 2 ** Math.min(this.attempt++, 30));
    const retryInMs = this.options.random() * longest;
    this.phase = "waiting";
    this.due = now + retryInMs;
    this.say({ state: "waiting", reason, retryInMs });
  }

  private fail(error: WatchoutError): void {
    this.leave("closed", 1000, { state: "closed", reason: error });
  }

  private leave(phase: "idle" | "closed", code: number, event: StateEvent = { state: "idle" }): void {
    const before = this.phase;
    this.phase = phase;
    if (before === "opening" || before === "signing" || before === "ready" || before === "online") this.emit({ do: "drop", code });
    this.reset();
    this.say(event);
  }

  private reset(): void {
    this.due = this.pingAt = this.renewAt = Infinity;
    this.pingSentAt = this.renewing = this.lastError = undefined;
    this.roundTrips.length = 0;
    this.emit({ do: "lost" });
  }

  private say(event: StateEvent): void {
    if (event.state === this.state.state && event.reason === undefined) return;
    this.state = event;
    this.emit({ do: "state", event });
  }
}

/**
 * The subscriptions of one socket: what its views want together, subscribed again on each connection. Pure.
 *
 * The protocol has one subscription per stream and socket. Views of one stream share it: it has the highest `maxFps` and
 * the least `window` of all, and JSON if one view wants JSON. Each view gets frames at its own rate, and each alert once. A
 * frame is acknowledged when the first view has taken it, so that a slow view does not slow the others.
 */

import { type WatchoutError, errorOf } from "../errors.js";
import type { AlertAcknowledgedMessage, AlertMessage, ClientMessage, ServerMessage, SubscribeMessage } from "../messages.js";
import type { Alert, Frame, ViewEvents, ViewStatus } from "../types.js";
import { Pace, Rate } from "./rate.js";
import { SeenIds } from "./seen.js";
import { nextWindow } from "./window.js";

/** What one view wants now. */
export interface Wish {
  readonly frames: boolean;
  readonly alerts: boolean;
  readonly maxFps: number | undefined;
  readonly window: "auto" | number;
  readonly format: "binary" | "json";
}

/** How the core passes frames, alerts and status to a view. */
export interface ViewSink {
  onStatus(status: ViewStatus, info: Readonly<Record<string, unknown>> | undefined): void;
  onFrame(frame: Frame): void;
  onAlert(alert: Alert): void;
  onAcknowledged(message: AlertAcknowledgedMessage): void;
  onRecovery(event: ViewEvents["recovery"]): void;
  onError(error: WatchoutError): void;
}

/** The part of the connection that the core uses. */
export interface Wire {
  send(message: ClientMessage): void;
  requestId(): string;
  readonly pingEvery: number | undefined;
  readonly roundTrips: readonly number[];
  /** The server's time, in ms since the epoch, when the last message came; undefined: not known. */
  readonly serverHeardAt: number | undefined;
}

/** The state of one view. */
export class ViewMember {
  readonly _pace = new Pace();
  readonly _seen = new SeenIds(4096);
  /** Time by the server's clock since which alerts belong to this view; undefined: it has never been subscribed. */
  since: number | undefined;
  /** Whether alerts before the next one may be missing. */
  _gap = false;

  constructor(
    readonly streamId: string,
    public wish: Wish,
    readonly sink: ViewSink,
    alertsSince: number | undefined,
  ) {
    this.since = alertsSince;
  }
}

/** Most requests without an answer at one time. */
const MOST_PENDING = 16;
/** A request without an answer is sent again after this, in ms: the server drops what is over its limits. */
const ANSWER_MS = 10_000;
/** Time between two changes of a window, in ms. */
const WINDOW_MS = 5_000;
/** Alerts that were accepted up to this long before the connection was lost may not have arrived, in ms. */
const OVERLAP_MS = 10_000;
/** Longest time between a frame and its alert that is allowed for when views share a replay, in ms. */
const LATENCY_MS = 60_000;

type Pending = {
  readonly message: SubscribeMessage | Extract<ClientMessage, { type: "unsubscribe" }>;
  readonly requestId: string;
  readonly sentAt: number;
  readonly members: readonly ViewMember[];
};

class Subscription {
  readonly _members = new Set<ViewMember>();
  readonly _rate = new Rate();
  /** The subscription that the server confirmed on this connection, as text to compare; undefined: none. */
  _standing: string | undefined;
  _pending: Pending | undefined;
  _retryAt = -Infinity;
  _retries = 0;
  _refused = false;
  status: ViewStatus = "waiting";
  info: Readonly<Record<string, unknown>> | undefined;
  _acked = 0;
  window = 2;
  _windowAt = -Infinity;
  /** The replay whose alerts are arriving: for which views, since when; until the pong of the ping after it. */
  _replay: { readonly pingId: string; readonly since: number; readonly limits: ReadonlyMap<ViewMember, number> } | undefined;

  constructor(readonly streamId: string) {}
}

export class Subscriptions {
  private readonly _streams = new Map<string, Subscription>();
  private _connected = false;
  /** The server's time when the last message of the former connection arrived. */
  private _heardAt: number | undefined;
  /** Views whose own `alertsSince` was answered. */
  private readonly _served = new WeakSet<ViewMember>();

  constructor(
    private readonly _wire: Wire,
    private readonly _random: () => number,
  ) {}

  /** Whether a socket is needed. */
  get needed(): boolean {
    for (const each of this._streams.values()) if (each._members.size > 0) return true;
    return false;
  }

  /** The stream, if all views are of one; else undefined. */
  get only(): string | undefined {
    return this._streams.size > 1 ? undefined : this._streams.keys().next().value;
  }

  add(member: ViewMember): void {
    let stream = this._streams.get(member.streamId);
    if (stream === undefined) this._streams.set(member.streamId, (stream = new Subscription(member.streamId)));
    if (stream._members.size === 0) stream._refused = false;
    stream._members.add(member);
    member.sink.onStatus(stream.status, stream.info);
  }

  remove(member: ViewMember): void {
    this._streams.get(member.streamId)?._members.delete(member);
  }

  /** Subscribe again to a stream that was refused. */
  retry(streamId: string): void {
    const stream = this._streams.get(streamId);
    if (stream?._refused) stream._refused = false;
  }

  /** Handle a new connection on which the client is signed in. */
  onReady(now: number): void {
    this._connected = true;
    for (const stream of this._streams.values()) {
      stream._refused = false;
      stream._retryAt = -Infinity;
    }
    this.sync(now);
  }

  onLost(): void {
    if (this._connected) this._heardAt = this._wire.serverHeardAt ?? this._heardAt;
    this._connected = false;
    for (const stream of this._streams.values()) {
      stream._standing = stream._pending = stream._replay = undefined;
      stream._acked = 0;
      this._setStatus(stream, "waiting");
      if (stream._members.size === 0) this._streams.delete(stream.streamId);
    }
  }

  /** The next time at which `sync` has something to do. */
  get deadline(): number {
    let due = Infinity;
    if (this._connected)
      for (const stream of this._streams.values()) {
        if (stream._pending !== undefined) due = Math.min(due, stream._pending.sentAt + ANSWER_MS);
        else if (stream._retryAt > -Infinity) due = Math.min(due, stream._retryAt);
      }
    return due;
  }

  /** Send the requests for what is wanted and not confirmed yet. */
  sync(now: number): void {
    if (!this._connected) return;
    let pending = 0;
    for (const stream of this._streams.values()) {
      if (stream._pending !== undefined && now >= stream._pending.sentAt + ANSWER_MS) {
        if (stream._pending.message.type === "unsubscribe") stream._standing = undefined; // an older server does not answer it
        stream._pending = undefined;
      }
      if (stream._pending !== undefined) pending++;
    }
    for (const stream of this._streams.values()) {
      if (pending >= MOST_PENDING) return;
      if (stream._pending !== undefined || stream._refused || now < stream._retryAt) continue;
      stream._retryAt = -Infinity;
      if (this._ask(stream, now)) pending++;
    }
  }

  /** Handle an error; returns false for one that is about none of the streams. */
  onMessage(message: ServerMessage, now: number): boolean {
    switch (message.type) {
      case "success":
        if (message.event === "subscribed" || message.event === "unsubscribed") this._onDone(message, now);
        return true;
      case "error":
        return this._onError(message, now);
      case "status": {
        const stream = this._streams.get(message.streamId);
        if (stream === undefined) return true;
        if (message.info !== undefined) {
          stream.info = message.info ?? undefined;
          stream.status = "waiting"; // so that the next status is reported, whatever it is
        }
        if (stream._standing !== undefined) this._setStatus(stream, message.status);
        return true;
      }
      case "alert":
        this._onAlert(message);
        return true;
      case "alert-acknowledged":
        for (const member of this._streams.get(message.streamId)?._members ?? []) member.sink.onAcknowledged(message);
        return true;
      default:
        return true;
    }
  }

  onPong(requestId: string | undefined, now: number): void {
    for (const stream of this._streams.values()) {
      if (requestId !== undefined && stream._replay?.pingId === requestId) stream._replay = undefined;
      const auto = [...stream._members].some((each) => each.wish.frames && each.wish.window === "auto");
      if (!auto || stream._standing === undefined || now - stream._windowAt < WINDOW_MS) continue;
      const window = nextWindow(stream.window, this._wantedFps(stream, now), this._wire.roundTrips);
      if (window === stream.window) continue;
      stream.window = window;
      stream._windowAt = now;
    }
    this.sync(now);
  }

  onFrame(frame: Frame, now: number): void {
    const stream = this._streams.get(frame.streamId);
    if (stream === undefined) return;
    stream._rate.count(now);
    let taken = false;
    for (const member of stream._members)
      if (member.wish.frames && member._pace.take(member.wish.maxFps, now)) {
        taken = true;
        member.sink.onFrame(frame);
      }
    if (!taken) this.acknowledge(frame.streamId, frame.frameId);
  }

  /** Count frames that did not pass here because the worker shows them by itself. */
  onShown(streamId: string, count: number, now: number): void {
    const rate = this._streams.get(streamId)?._rate;
    for (let each = 0; each < count; each++) rate?.count(now);
  }

  /** Handle that a view has taken a frame, or that no view can use it. */
  acknowledge(streamId: string, frameId: number): void {
    const stream = this._streams.get(streamId);
    if (stream === undefined || !this._connected || stream._standing === undefined || frameId <= stream._acked) return;
    stream._acked = frameId;
    this._wire.send({ type: "ack", streamId, frameId });
  }

  /** Frames per second that arrive for a stream. */
  fps(streamId: string, now: number): number {
    return this._streams.get(streamId)?._rate.at(now) ?? 0;
  }

  private _wantedFps(stream: Subscription, now: number): number {
    const arriving = stream._rate.at(now);
    const wanted = unionOfRates(stream._members);
    return wanted === undefined ? arriving : Math.min(wanted, Math.max(arriving, 1));
  }

  private _ask(stream: Subscription, now: number): boolean {
    const members = [...stream._members];
    const { streamId } = stream;
    const requestId = this._wire.requestId();
    if (members.length === 0) {
      if (stream._standing === undefined) {
        this._streams.delete(streamId);
        return false;
      }
      return this._request(stream, { message: { type: "unsubscribe", streamId, requestId }, requestId, sentAt: now, members });
    }
    const body = this._union(stream, members);
    const text = JSON.stringify(body);
    const fresh = members.filter((each) => each.wish.alerts && each.since !== undefined);
    const asks = stream._standing === undefined ? fresh : fresh.filter((each) => !this._served.has(each));
    if (text === stream._standing && asks.length === 0) {
      for (const each of members)
        if (each.wish.alerts && each.since === undefined) {
          each.since = this._wire.serverHeardAt;
          this._served.add(each);
        }
      return false;
    }
    const message: SubscribeMessage = {
      ...body,
      alertsSince: asks.length > 0 ? Math.min(...asks.map((each) => this._sinceOf(each))) : undefined,
      pingEvery: this._wire.pingEvery,
      requestId,
    };
    return this._request(stream, { message, requestId, sentAt: now, members });
  }

  /** Time since which this view needs alerts: its own at first, later shortly before the connection was lost. */
  private _sinceOf(member: ViewMember): number {
    const own = member.since as number;
    if (!this._served.has(member) || this._heardAt === undefined) return own;
    return Math.max(own, Math.floor(this._heardAt - OVERLAP_MS));
  }

  private _request(stream: Subscription, pending: Pending): boolean {
    stream._pending = pending;
    this._wire.send(pending.message);
    return true;
  }

  private _union(stream: Subscription, members: readonly ViewMember[]): SubscribeMessage {
    const viewing = members.filter((each) => each.wish.frames);
    const consumes = [
      ...(viewing.length > 0 ? ["video-frame"] : []),
      ...(members.some((each) => each.wish.alerts) ? ["alert"] : []),
    ];
    const base = { type: "subscribe", streamId: stream.streamId, consumes } as const;
    if (viewing.length === 0) return base;
    const maxFps = unionOfRates(stream._members);
    return {
      ...base,
      format: viewing.some((each) => each.wish.format === "json") ? "json" : "binary",
      maxFps,
      window: Math.min(...viewing.map((each) => (each.wish.window === "auto" ? stream.window : each.wish.window))),
    };
  }

  private _onDone(message: Extract<ServerMessage, { type: "success" }>, now: number): void {
    const stream = this._pendingOf(message.requestId, message.streamId);
    const pending = stream?._pending;
    if (stream === undefined || pending === undefined) return;
    stream._pending = undefined;
    stream._retries = 0;
    if (pending.message.type === "unsubscribe") {
      stream._standing = undefined;
      if (stream._members.size === 0) this._streams.delete(stream.streamId);
      else this._setStatus(stream, "waiting");
    } else this._onSubscribed(stream, pending, pending.message, message);
    this.sync(now);
  }

  private _onSubscribed(
    stream: Subscription,
    pending: Pending,
    asked: SubscribeMessage,
    message: Extract<ServerMessage, { type: "success" }>,
  ): void {
    const { alertsSince, requestId: _, pingEvery: __, ...body } = asked;
    stream._standing = JSON.stringify(body);
    stream._acked = 0;
    const members = pending.members.filter((each) => each.wish.alerts && stream._members.has(each));
    if (alertsSince !== undefined) {
      // An alert carries the time of its frame, which is before that of its arrival.
      const limits = new Map(members.map((each) => [each, each.since === undefined ? message.timestamp : this._sinceOf(each) - LATENCY_MS]));
      if ([...limits.values()].some((each) => each > alertsSince)) {
        const pingId = this._wire.requestId();
        stream._replay = { pingId, since: alertsSince, limits };
        this._wire.send({ type: "ping", requestId: pingId });
      }
      const recovered = message.recovered === true;
      for (const member of members) {
        if (member.since === undefined) continue;
        if (!recovered) member._gap = true;
        member.sink.onRecovery({ recovered, from: message.from });
      }
    }
    for (const member of members) {
      member.since ??= message.timestamp;
      this._served.add(member);
    }
  }

  private _onError(message: Extract<ServerMessage, { type: "error" }>, now: number): boolean {
    const stream = this._pendingOf(message.requestId, message.streamId);
    const { code } = message;
    const error = errorOf(message, stream?.streamId);
    if (stream?._pending !== undefined) {
      stream._pending = undefined;
      if (error.retryable) stream._retryAt = now + (0.5 + this._random() / 2) * Math.min(30_000, 1000 * 2 ** stream._retries++);
      else this._refuse(stream);
      this._fail(stream, error);
    } else if (message.streamId !== undefined) {
      const about = this._streams.get(message.streamId);
      if (about === undefined) return false;
      if (code === "UNAUTHORIZED" && message.requestId === undefined && about._standing !== undefined) this._refuse(about);
      this._fail(about, error);
    } else return false;
    this.sync(now);
    return true;
  }

  /** Return the stream whose request is answered. Servers that name neither request nor stream answer in order. */
  private _pendingOf(requestId: string | undefined, streamId: string | undefined): Subscription | undefined {
    if (requestId !== undefined) return [...this._streams.values()].find((each) => each._pending?.requestId === requestId);
    if (streamId !== undefined) {
      const named = this._streams.get(streamId);
      return named?._pending === undefined ? undefined : named;
    }
    return [...this._streams.values()]
      .filter((each) => each._pending !== undefined)
      .sort((one, two) => (one._pending?.sentAt ?? 0) - (two._pending?.sentAt ?? 0))[0];
  }

  private _onAlert(alert: AlertMessage): void {
    const stream = this._streams.get(alert.streamId);
    for (const member of stream?._members ?? []) {
      if (!member.wish.alerts) continue;
      const limit = stream?._replay?.limits.get(member);
      if (limit !== undefined && limit > (stream?._replay?.since ?? 0) && alert.timestamp < limit) continue;
      if (!member._seen.add(alert.id)) continue;
      const recovered = !member._gap;
      member._gap = false;
      member.sink.onAlert({ ...alert, recovered });
    }
  }

  private _refuse(stream: Subscription): void {
    stream._refused = true;
    stream._standing = undefined;
    this._setStatus(stream, "forbidden");
  }

  private _fail(stream: Subscription, error: WatchoutError): void {
    for (const member of stream._members) member.sink.onError(error);
  }

  private _setStatus(stream: Subscription, status: ViewStatus): void {
    if (status === stream.status) return;
    stream.status = status;
    for (const member of stream._members) member.sink.onStatus(status, stream.info);
  }
}

function unionOfRates(members: Iterable<ViewMember>): number | undefined {
  let most = 0;
  for (const { wish } of members)
    if (wish.frames) {
      if (wish.maxFps === undefined) return undefined;
      most = Math.max(most, wish.maxFps);
    }
  return most || undefined;
}

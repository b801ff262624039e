/** The public interface of the client. */

import type { WatchoutError } from "./errors.js";
import type { AlertMessage, AlertAcknowledgedMessage, DemandMessage, Severity, StreamStatus } from "./messages.js";

/** Why a token is requested: first connection, before it expires, refused by the server, or its session ended. */
export type TokenReason = "connect" | "expiring" | "rejected" | "ended";

/** Returns a token; `null` or an empty text: nobody is signed in. `signal` is aborted when the result is not needed any more. */
export type TokenSource = (why: TokenReason, context: { signal: AbortSignal }) => string | null | Promise<string | null>;

/** `idle`: no socket is needed. `waiting`: not connected, the next attempt is scheduled. `closed`: for good. */
export type ConnectionState = "idle" | "connecting" | "online" | "waiting" | "closed";

/** State of a connection, with the reason and the time of the next attempt. */
export interface StateEvent {
  readonly state: ConnectionState;
  /** Why it is waiting or closed. */
  readonly reason?: WatchoutError;
  /** `waiting`: milliseconds until the next attempt, at the time of the event. */
  readonly retryInMs?: number;
}

/** The part of a WebSocket that the client uses. */
export interface SocketLike {
  binaryType: string;
  readonly readyState: number;
  readonly bufferedAmount?: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string | ArrayBufferLike | ArrayBufferView): void;
  close(code?: number, reason?: string): void;
}
export type SocketConstructor = new (url: string) => SocketLike;

/** Time as the client sees it; injectable for tests. */
export interface Clock {
  /** Milliseconds of a monotonic clock. */
  now(): number;
  /** Milliseconds since the epoch. */
  wall(): number;
  /** Call `run` once, after `ms`. Returns a function that cancels this. */
  timer(run: () => void, ms: number): () => void;
}

/** Reports of the platform: online, offline, or app shown again. Returns a function that stops the reports. */
export type Platform = (report: (event: "online" | "offline" | "wake") => void) => () => void;

export interface WatchoutOptions {
  /** A session token, JWT or share token, or a function that returns one. Neither `token` nor `ticket`: the browser's cookie. */
  readonly token?: string | TokenSource;
  /** A one-time ticket for the upgrade in place of a token, or a function that returns one for each connection. */
  readonly ticket?: string | TokenSource;
  /** The WebSocket class; default: the platform's. */
  readonly WebSocket?: SocketConstructor;
  /** `fetch` for `streams()`, `alerts()` and shares; default: the platform's. */
  readonly fetch?: typeof fetch;
  /** Longest silence in ms before a connection counts as lost. Default 15 000. */
  readonly silenceMs?: number;
  /** Back-off in ms. Defaults: first 1000, cap 30 000; reset after a connection that lasted `stable`, 10 000. */
  readonly backoff?: { readonly firstMs?: number; readonly capMs?: number; readonly stableMs?: number };
  /** How long the socket stays open after the last view closed, in ms. Default 5000. */
  readonly lingerMs?: number;
  readonly clock?: Clock;
  /** Uniform number in [0, 1). */
  readonly random?: () => number;
  /** Where reports of network and app state come from; default: `online`, `offline`, `visibilitychange` of the page. */
  readonly platform?: Platform;
}

/** One encoded picture. */
export interface Frame {
  readonly streamId: string;
  readonly frameId: number;
  /** The camera's time, ms since the epoch. */
  readonly timestamp: number;
  /** When it arrived, in ms of the client's clock (`performance.now()`). */
  readonly receivedAt: number;
  /** The encoded picture. Views of one stream in one client share these bytes: copy them before a transfer. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** MIME type; `application/octet-stream` when it is not known. */
  readonly mime: string;
  /** `format: "json"`: the whole message with the camera's own fields. */
  readonly message?: Readonly<Record<string, unknown>>;
}

/** An alert for the app. `recovered` false: alerts between this one and the one before may be missing. */
export type Alert = AlertMessage & { readonly recovered: boolean };

/**
 * `waiting`: not connected, or not subscribed yet. `streaming`, `online` (camera without frames), `offline` (no camera):
 * the status of the stream. `forbidden`: the subscription was refused, see the `error` event. `closed`: by `close()`.
 */
export type ViewStatus = "waiting" | StreamStatus | "forbidden" | "closed";

export interface ViewOptions {
  /** Highest rate of frames per second. Default: every frame. */
  readonly maxFps?: number;
  /** Most frames under way. Default "auto": 2 to 6, by round trip and rate. */
  readonly window?: "auto" | number;
  /** Time in ms since the epoch; alerts since then are delivered first. */
  readonly alertsSince?: number;
  /** Whether frames are received. Default: while a loop iterates `frames()`. */
  readonly frames?: boolean;
  /** Whether alerts are received. Default true. */
  readonly alerts?: boolean;
  /** Format of frames on the wire. Default "binary"; "json" keeps the fields that a camera added. */
  readonly format?: "binary" | "json";
}

export interface ViewEvents {
  /** The status or `View.info` changed. */
  status: ViewStatus;
  /** A user acknowledged the alert. */
  acknowledged: AlertAcknowledgedMessage;
  alert: Alert;
  /** The answer to a recovery: `recovered` false means that alerts older than `from` are missing. */
  recovery: { readonly recovered: boolean; readonly from?: number };
  error: WatchoutError;
}

export interface CameraOptions {
  /** Id of the stream; without one the server makes an id, which the camera keeps over all reconnections. */
  readonly streamId?: string;
  /** Shown in `GET /streams` and to viewers: `deviceName`, `deviceType`, anything; at most 4 KiB. */
  readonly info?: Readonly<Record<string, unknown>>;
  /** Most frames under way to the server. Default 2. */
  readonly window?: number;
  /** Whether this camera receives the alerts of its stream. Default true. */
  readonly alerts?: boolean;
}

export interface CameraEvents {
  state: StateEvent;
  /** The stream's id is known: at the first registration. */
  registered: { readonly streamId: string };
  demand: DemandMessage;
  /** The server has taken all frames up to the one with this timestamp. */
  taken: { readonly timestamp: number };
  /** `room` may have become true. */
  room: undefined;
  status: StreamStatus;
  alert: Alert;
  acknowledged: AlertAcknowledgedMessage;
  error: WatchoutError;
}

export interface SendOptions {
  /** The camera's time, ms since the epoch; default: now. */
  readonly timestamp?: number;
  /** Codec of the picture; default: by its first bytes. */
  readonly codec?: "jpeg" | "png" | "webp" | "opaque";
}

export interface AlertOptions {
  readonly metadata?: Readonly<Record<string, unknown>>;
  readonly timestamp?: number;
  readonly frameId?: number;
  /** Unique id; default: a random one. Sent again with the same id, an alert has one effect. */
  readonly id?: string;
}

export interface WatchoutEvents {
  state: StateEvent;
  /** A failure that no state shows: an error of the server about no view, or a token callback that failed. */
  error: WatchoutError;
}

/** A stream as `GET /streams` lists it. */
export interface StreamSummary {
  readonly id: string;
  readonly userId: string;
  readonly status: StreamStatus;
  readonly fps: number;
  readonly viewers: number;
  readonly startedAt: number | string | null;
  readonly lastFrameAt: number | string | null;
  readonly info?: Readonly<Record<string, unknown>>;
  readonly [more: string]: unknown;
}

export interface AlertQuery {
  readonly streamId?: string;
  readonly since?: number;
  readonly limit?: number;
  readonly severity?: Severity;
  readonly order?: "asc" | "desc";
}

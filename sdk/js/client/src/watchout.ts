/** The client: views and cameras of one gateway, and its token. */

import { Camera } from "./camera.js";
import { Subscriptions } from "./core/subscriptions.js";
import { WatchoutError, errorOf } from "./errors.js";
import { Emitter } from "./events.js";
import { type Share, request } from "./http.js";
import { type Environment, Link } from "./link.js";
import type { AlertMessage, ServerMessage } from "./messages.js";
import { pagePlatform, systemClock, systemSocket } from "./platform.js";
import { TokenKeeper } from "./tokens.js";
import type {
  AlertQuery,
  CameraOptions,
  ConnectionState,
  StateEvent,
  StreamSummary,
  ViewOptions,
  WatchoutEvents,
  WatchoutOptions,
} from "./types.js";
import { View, type ViewHost } from "./view.js";

/** Codes of closed cameras that `connect()` starts again: all codes about signing in. */
const SIGN_IN_CODES = /AUTH_|SIGN|SESS|TICK/;
const STREAM_ID = /^[A-Za-z0-9_.:-]{1,128}$/;

export class Watchout extends Emitter<WatchoutEvents> {
  protected readonly _environment: Environment;
  private readonly _fetcher: typeof fetch | undefined;
  private readonly _lingerMs: number;
  private readonly _link: Link;
  protected readonly _subscriptions: Subscriptions;
  private readonly _views = new Set<View>();
  private readonly _cameras = new Set<Camera>();
  private readonly _host: ViewHost;
  private _stopAt = Infinity;
  private _planned = false;
  private _closed: WatchoutError | undefined;
  private _current: StateEvent = { state: "idle" };

  /**
   * @param url - The gateway: `https://host` or `wss://host`, with a path where a proxy has one; in a page also relative.
   *   The path of a socket (`/streams/subscribe`) at its end is ignored.
   */
  constructor(url: string | URL, options: WatchoutOptions = {}) {
    super();
    checkOptions(options);
    const clock = options.clock ?? systemClock;
    const mode = options.token !== undefined ? "token" : options.ticket !== undefined ? "ticket" : "cookie";
    const source = options.token ?? options.ticket;
    const { firstMs = 1000, capMs = 30_000, stableMs = 10_000 } = options.backoff ?? {};
    this._environment = {
      url: addressOf(String(url)),
      clock,
      random: options.random ?? Math.random,
      platform: options.platform ?? pagePlatform,
      socket: () => options.WebSocket ?? systemSocket(),
      mode,
      tokens: source === undefined || mode === "cookie" ? undefined : new TokenKeeper(source, mode, clock),
      silenceMs: options.silenceMs ?? 15_000,
      firstMs,
      capMs,
      stableMs,
    };
    this._fetcher = options.fetch;
    this._lingerMs = options.lingerMs ?? 5000;
    this._link = this._viewerLink();
    this._subscriptions = new Subscriptions(this._link, this._environment.random);
    this._host = {
      changed: () => this._plan(),
      remove: (view) => {
        this._views.delete(view);
        this._subscriptions.remove(view.member);
        this._plan();
      },
      taken: (streamId, frameId) => this._link.act(() => this._subscriptions.acknowledge(streamId, frameId)),
      fps: (streamId) => this._subscriptions.fps(streamId, clock.now()),
      acknowledge: (streamId, alertId, note) => this.acknowledge(streamId, alertId, note),
      retry: (streamId) => {
        this._subscriptions.retry(streamId);
        this._plan();
      },
    };
  }

  /** The state of the worst of all sockets: `waiting` if one of them waits. */
  get state(): ConnectionState {
    return this._current.state;
  }

  /** The state with its reason, and the time of the next attempt. */
  get stateEvent(): StateEvent {
    return this._current;
  }

  /** View a stream, which need not exist yet. All views share one socket. Throws when the client is closed. */
  view(streamId: string, options: ViewOptions = {}): View {
    this._check(streamId, options);
    const view = new View(this._host, streamId, options);
    this._views.add(view);
    this._subscriptions.add(view.member);
    const { state } = this._link;
    if (state.state === "closed") view.end(state.reason);
    this._plan();
    return view;
  }

  /** Publish a stream over a socket of its own. Throws when the client is closed. */
  camera(options: CameraOptions = {}): Camera {
    this._check(options.streamId ?? "new", options);
    return new Camera(this._environment, options, (each) => {
      if (each.state.state === "closed" && !SIGN_IN_CODES.test(each.state.reason?.code ?? "")) this._cameras.delete(each);
      else this._cameras.add(each);
      this._tellState();
    });
  }

  /** Connect again after the state `closed`, because a user has signed in. */
  connect(): void {
    if (this._closed !== undefined) return;
    if (this._link.state.state === "closed") {
      for (const view of this._views) view.error = undefined;
      this._link.act((now) => (this._subscriptions.needed ? this._link.connection.start(now) : this._link.connection.stop()));
    }
    for (const camera of this._cameras)
      if (camera.state.state === "closed") camera.link.act((now) => camera.link.connection.start(now));
  }

  /** Close all views, cameras and sockets. */
  close(): void {
    if (this._closed !== undefined) return;
    this._closed = new WatchoutError("CLOSED", "client closed");
    for (const view of [...this._views]) view.close();
    for (const camera of [...this._cameras]) camera.close();
    this._link.act(() => this._link.connection.close(this._closed as WatchoutError));
    this._environment.tokens?.abort();
  }

  /** Acknowledge an alert; all who received it are notified. Returns false without a connection. */
  acknowledge(streamId: string, alertId: string, note?: string): boolean {
    const requestId = this._link.requestId();
    return this._link.send({ type: "acknowledge", streamId, alertId, note, requestId });
  }

  /** The streams that the user may view. Rejects with a `WatchoutError`. */
  async streams(signal?: AbortSignal): Promise<StreamSummary[]> {
    return (await this.request("/streams", { signal })).streams as StreamSummary[];
  }

  /** Recent alerts that the server keeps, newest last. Rejects with a `WatchoutError`. */
  async alerts(query: AlertQuery = {}, signal?: AbortSignal): Promise<AlertMessage[]> {
    const search = Object.entries(query).map(([name, value]) => (value === undefined || value === "asc" ? "" : `&${name}=${value}`));
    return (await this.request(`/alerts?${search.join("").slice(1)}`, { signal })).alerts as AlertMessage[];
  }

  /** Make a view-only token for a stream of the user. Rejects with a `WatchoutError`. */
  share(streamId: string, options: { readonly seconds: number; readonly alerts?: boolean }): Promise<Share> {
    return this.request(`/streams/${streamId}/shares`, { method: "POST", body: options });
  }

  /** The shares of a stream. Rejects with a `WatchoutError`. */
  async shares(streamId: string): Promise<Share[]> {
    return (await this.request(`/streams/${streamId}/shares`)).shares as Share[];
  }

  /** End a share and its sockets. Rejects with a `WatchoutError`. */
  async unshare(streamId: string, shareId: string): Promise<void> {
    await this.request(`/streams/${streamId}/shares/${encodeURIComponent(shareId)}`, { method: "DELETE" });
  }

  /** One request to the gateway's HTTP side, signed in as the sockets are. Rejects with a `WatchoutError`. */
  async request(path: string, init: { method?: string; body?: unknown; signal?: AbortSignal | undefined } = {}): Promise<any> {
    const { url, tokens, mode } = this._environment;
    return request(this._fetcher ?? fetch, url + path, mode === "token" && tokens, init);
  }

  private _check(streamId: string, options: object): void {
    if (this._closed !== undefined) throw this._closed;
    checkOptions(options);
    if (typeof streamId !== "string" || !STREAM_ID.test(streamId)) throw new RangeError(`not a stream id (${STREAM_ID}): ${JSON.stringify(streamId)}`);
  }

  private _viewerLink(): Link {
    const watchout = this;
    return new Link(this._environment, "/streams/subscribe", () => this._subscriptions.only, {
      get deadline() {
        return Math.min(watchout._stopAt, watchout._subscriptions.deadline);
      },
      onReady: (now) => {
        this._link.connection.onSession(now);
        this._subscriptions.onReady(now);
      },
      onLost: () => this._subscriptions.onLost(),
      onMessage: (message, now) => this._onMessage(message, now),
      onFrame: (frame, now) => this._subscriptions.onFrame(frame, now),
      onState: (event) => {
        if (event.state === "closed") for (const view of [...this._views]) view.end(event.reason);
        this._tellState();
      },
      onError: (error) => this._fire("error", error),
      tick: (now) => this._update(now),
    });
  }

  private _onMessage(message: ServerMessage, now: number): void {
    if (message.type === "pong") this._subscriptions.onPong(message.requestId, now);
    else if (!this._subscriptions.onMessage(message, now) && message.type === "error") this._fire("error", errorOf(message));
  }

  /** Handle changed views at the end of this task, so that a view that is closed and opened again changes nothing. */
  private _plan(): void {
    if (this._planned) return;
    this._planned = true;
    queueMicrotask(() => {
      this._planned = false;
      this._link.act((now) => this._update(now));
    });
  }

  private _update(now: number): void {
    const { connection } = this._link;
    if (this._closed !== undefined) this._stopAt = Infinity;
    else if (this._subscriptions.needed) {
      this._stopAt = Infinity;
      if (connection.state.state === "idle") connection.start(now);
    } else if (connection.state.state === "idle" || connection.state.state === "closed") this._stopAt = Infinity;
    else if (this._stopAt === Infinity) this._stopAt = now + this._lingerMs;
    else if (now >= this._stopAt) {
      this._stopAt = Infinity;
      connection.stop();
    }
    this._subscriptions.sync(now);
  }

  private _tellState(): void {
    const event = this._worst();
    if (event.state === this._current.state && event.reason === this._current.reason) return;
    this._current = event;
    this._fire("state", event);
  }

  private _worst(): StateEvent {
    if (this._closed !== undefined) return { state: "closed", reason: this._closed };
    const events = [this._link.state, ...[...this._cameras].map((each) => each.state)];
    for (const state of ["closed", "waiting", "connecting", "online"] as const) {
      const found = events.find((each) => each.state === state);
      if (found !== undefined) return found;
    }
    return { state: "idle" };
  }
}

/** Throws for options that are no object: JavaScript would ignore a text in their place. */
function checkOptions(options: unknown): void {
  if (typeof options !== "object") throw new TypeError(`not options: ${JSON.stringify(options)}`);
}

/** Returns the address of a gateway as http or https; in a page also of a relative one. Without `URL`, in which platforms differ. */
function addressOf(url: string): string {
  const { location } = globalThis as { location?: { href: string } };
  const address = /^\w+:/.test(url) || location === undefined ? url : new URL(url, location.href).href;
  if (!/^(http|ws)s?:\/\/[^/?#]/.test(address)) throw new TypeError(`not a URL of http(s) or ws(s): ${JSON.stringify(url)}`);
  return address.replace(/^ws/, "http").replace(/(\/streams\/(register|subscribe))?\/*([?#].*)?$/, "");
}

/** The client: views and cameras of one gateway, and its token. */

import { Camera } from "./camera.js";
import { Subscriptions, type Wire } from "./core/subscriptions.js";
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

/** What a camera may be closed with so that `connect()` starts it again. */
const SIGN_IN_CODES = new Set(["SESSION_ENDED", "AUTH_FAILED", "AUTH_TIMEOUT", "AUTH_REQUIRED", "SIGNED_OUT", "TICKET_USED"]);
const STREAM_ID = /^[A-Za-z0-9_.:-]{1,128}$/;

export class Watchout extends Emitter<WatchoutEvents> {
  private readonly environment: Environment;
  private readonly fetcher: typeof fetch | undefined;
  private readonly lingerMs: number;
  private readonly link: Link;
  private readonly subscriptions: Subscriptions;
  private readonly views = new Set<View>();
  private readonly cameras = new Set<Camera>();
  private readonly host: ViewHost;
  private stopAt = Infinity;
  private planned = false;
  private closed: WatchoutError | undefined;
  private current: StateEvent = { state: "idle" };

  /**
   * @param url - The gateway: `https://host` or `wss://host`, with a path where a proxy has one; in a page also relative.
   */
  constructor(url: string | URL, options: WatchoutOptions = {}) {
    super();
    const { location } = globalThis as { location?: { href: string } };
    const address = new URL(url, location?.href);
    if (!/^(http|ws)s?:$/.test(address.protocol)) throw new TypeError(`a URL of http, https, ws or wss is expected, not ${address.href}`);
    address.search = address.hash = "";
    address.protocol = address.protocol.replace("ws", "http");
    const clock = options.clock ?? systemClock;
    const mode = options.token !== undefined ? "token" : options.ticket !== undefined ? "ticket" : "cookie";
    const source = options.token ?? options.ticket;
    const { firstMs = 1000, capMs = 30_000, stableMs = 10_000 } = options.backoff ?? {};
    this.environment = {
      url: address,
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
    this.fetcher = options.fetch;
    this.lingerMs = options.lingerMs ?? 5000;
    this.link = this.viewerLink();
    this.subscriptions = new Subscriptions(this.wire(), this.environment.random);
    this.host = {
      changed: () => this.plan(),
      remove: (view) => {
        this.views.delete(view);
        this.subscriptions.remove(view.member);
        this.plan();
      },
      taken: (streamId, frameId) => this.link.act(() => this.subscriptions.acknowledge(streamId, frameId)),
      fps: (streamId) => this.subscriptions.fps(streamId, clock.now()),
      acknowledge: (streamId, alertId, note) => this.acknowledge(streamId, alertId, note),
      retry: (streamId) => {
        this.subscriptions.retry(streamId);
        this.plan();
      },
    };
  }

  /** The worst of all sockets: `waiting` when one of them waits. */
  get state(): ConnectionState {
    return this.current.state;
  }

  /** The state with its reason, and the time of the next attempt. */
  get stateEvent(): StateEvent {
    return this.current;
  }

  /** Watch a stream, also one that does not exist yet. All views share one socket. Throws when the client is closed. */
  view(streamId: string, options: ViewOptions = {}): View {
    this.check(streamId);
    const view = new View(this.host, streamId, options);
    this.views.add(view);
    this.subscriptions.add(view.member);
    const { state } = this.link;
    if (state.state === "closed") view.end(state.reason);
    this.plan();
    return view;
  }

  /** Publish a stream over a socket of its own. Throws when the client is closed. */
  camera(options: CameraOptions = {}): Camera {
    this.check(options.streamId ?? "new");
    return new Camera(this.environment, options, (each) => {
      if (each.state.state === "closed" && !SIGN_IN_CODES.has(each.state.reason?.code ?? "")) this.cameras.delete(each);
      else this.cameras.add(each);
      this.tellState();
    });
  }

  /** Connect again after a final close: somebody signed in. */
  connect(): void {
    if (this.closed !== undefined) return;
    if (this.link.state.state === "closed") {
      for (const view of this.views) view.error = undefined;
      this.link.act((now) => (this.subscriptions.needed ? this.link.connection.start(now) : this.link.connection.stop()));
    }
    for (const camera of this.cameras)
      if (camera.state.state === "closed") camera.link.act((now) => camera.link.connection.start(now));
  }

  /** Close all views, cameras and sockets. */
  close(): void {
    if (this.closed !== undefined) return;
    this.closed = new WatchoutError("CLOSED", "this client was closed");
    for (const view of [...this.views]) view.close();
    for (const camera of [...this.cameras]) camera.close();
    this.link.act(() => this.link.connection.close(this.closed as WatchoutError));
    this.environment.tokens?.abort();
  }

  /** Acknowledge an alert, for everybody. Returns whether it was sent: not without a connection. */
  acknowledge(streamId: string, alertId: string, note?: string): boolean {
    const requestId = this.link.connection.requestId();
    return this.link.send({ type: "acknowledge", streamId, alertId, note, requestId });
  }

  /** The streams that one may view. Rejects with a `WatchoutError`. */
  async streams(signal?: AbortSignal): Promise<StreamSummary[]> {
    return (await this.request("/streams", { signal })).streams as StreamSummary[];
  }

  /** Recent alerts that the server keeps, newest last. Rejects with a `WatchoutError`. */
  async alerts(query: AlertQuery = {}, signal?: AbortSignal): Promise<AlertMessage[]> {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "asc") search.set(name, String(value));
    return (await this.request(`/alerts?${search.toString()}`, { signal })).alerts as AlertMessage[];
  }

  /** Make a view-only token for a stream of one's own. Rejects with a `WatchoutError`. */
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
    const { url, tokens, mode } = this.environment;
    const address = new URL(url.href.replace(/\/*$/, "") + path);
    const token = mode === "token" ? ((await tokens?.get("connect")) ?? undefined) : undefined;
    const fetcher = this.fetcher ?? ((...all: Parameters<typeof fetch>) => fetch(...all));
    return request(fetcher, address, token, init);
  }

  private check(streamId: string): void {
    if (this.closed !== undefined) throw this.closed;
    if (!STREAM_ID.test(streamId)) throw new RangeError(`not a stream id (1 to 128 of A-Z a-z 0-9 _ . : -): ${JSON.stringify(streamId)}`);
  }

  private viewerLink(): Link {
    const watchout = this;
    return new Link(this.environment, "/streams/subscribe", {
      get deadline() {
        return Math.min(watchout.stopAt, watchout.subscriptions.deadline);
      },
      onReady: (now) => {
        this.link.connection.onSession(now);
        this.subscriptions.onReady(now);
      },
      onLost: () => this.subscriptions.onLost(),
      onMessage: (message, now) => this.onMessage(message, now),
      onFrame: (frame, now) => this.subscriptions.onFrame(frame, now),
      onState: (event) => {
        if (event.state === "closed") for (const view of [...this.views]) view.end(event.reason);
        this.tellState();
      },
      onError: (error) => this.fire("error", error),
      tick: (now) => this.update(now),
    });
  }

  private wire(): Wire {
    const { link } = this;
    return {
      send: (message) => link.send(message),
      requestId: () => link.connection.requestId(),
      get pingEvery() {
        return link.pingEvery;
      },
      get roundTrips() {
        return link.connection.roundTrips;
      },
      get serverHeardAt() {
        return link.serverHeardAt;
      },
    };
  }

  private onMessage(message: ServerMessage, now: number): void {
    if (message.type === "pong") this.subscriptions.onPong(message.requestId, now);
    else if (!this.subscriptions.onMessage(message, now) && message.type === "error") this.fire("error", errorOf(message));
  }

  /** Views changed: look at the end of this task, so that what is closed and opened again at once changes nothing. */
  private plan(): void {
    if (this.planned) return;
    this.planned = true;
    queueMicrotask(() => {
      this.planned = false;
      this.link.act((now) => this.update(now));
    });
  }

  private update(now: number): void {
    const { connection } = this.link;
    if (this.closed !== undefined) this.stopAt = Infinity;
    else if (this.subscriptions.needed) {
      this.stopAt = Infinity;
      if (connection.state.state === "idle") connection.start(now);
    } else if (connection.state.state === "idle" || connection.state.state === "closed") this.stopAt = Infinity;
    else if (this.stopAt === Infinity) this.stopAt = now + this.lingerMs;
    else if (now >= this.stopAt) {
      this.stopAt = Infinity;
      connection.stop();
    }
    this.subscriptions.sync(now);
  }

  private tellState(): void {
    const event = this.worst();
    if (event.state === this.current.state && event.reason === this.current.reason) return;
    this.current = event;
    this.fire("state", event);
  }

  private worst(): StateEvent {
    if (this.closed !== undefined) return { state: "closed", reason: this.closed };
    const events = [this.link.state, ...[...this.cameras].map((each) => each.state)];
    for (const state of ["closed", "waiting", "connecting", "online"] as const) {
      const found = events.find((each) => each.state === state);
      if (found !== undefined) return found;
    }
    return { state: "idle" };
  }
}

/** A camera: publishes the frames of one stream over a socket of its own. */

import { type CameraCommand, Publication } from "./core/publication.js";
import { SeenIds } from "./core/seen.js";
import { WatchoutError } from "./errors.js";
import { Emitter } from "./events.js";
import { type Environment, Link, type Session } from "./link.js";
import type { AlertMessage, DemandMessage, RaiseAlertMessage, ServerMessage, Severity, StreamStatus } from "./messages.js";
import type { AlertOptions, CameraEvents, CameraOptions, SendOptions, StateEvent } from "./types.js";
import { codecOf, encodeFrame } from "./wire.js";

/** Longest alert as JSON: a longer one would end the connection, each time that it is sent. */
const MOST_ALERT_LENGTH = 65_536;

export class Camera extends Emitter<CameraEvents> {
  /** @internal */
  readonly link: Link;
  private readonly _publication: Publication;
  private readonly _seen = new SeenIds(4096);
  private _currentStatus: StreamStatus | undefined;
  private readonly _alertWaiters = new Map<string, { resolve(id: string): void; reject(error: WatchoutError): void }>();
  private readonly _waiters = new Set<() => void>();
  private _idCount = 0;
  /** Bytes of the largest picture that was sent on this connection, and of one that the server does not take. */
  private _largest = 0;
  private _tooLarge = Infinity;

  /** @internal */
  constructor(
    private readonly _environment: Environment,
    options: CameraOptions,
    private readonly _onChange: (camera: Camera) => void,
  ) {
    super();
    const { streamId, info, window = 2, alerts = true } = options;
    if (!Number.isInteger(window) || window < 1 || window > 32) throw new RangeError(`window is 1 to 32, not ${window}`);
    JSON.stringify(info); // throws what says why it is none
    const camera = this;
    const session: Session = {
      get deadline() {
        return camera._publication.deadline;
      },
      onReady: (now) => this._publication.onReady(now),
      onLost: () => {
        this._publication.onLost();
        this._currentStatus = undefined;
      },
      onMessage: (message, now) => this._onMessage(message, now),
      onState: (event) => this._onState(event),
      onError: (error) => this._fire("error", error),
      tick: (now) => this._publication.tick(now),
    };
    this.link = new Link(_environment, "/streams/register", () => this.streamId, session);
    const { link } = this;
    this._publication = new Publication({ streamId, info, window, alerts }, link, _environment.random, (command) => this._carryOut(command));
    link.act((now) => link.connection.start(now));
  }

  /** The stream; undefined until the server made an id for it. */
  get streamId(): string | undefined {
    return this._publication.streamId;
  }

  get state(): StateEvent {
    return this.link.state;
  }

  get status(): StreamStatus | undefined {
    return this._currentStatus;
  }

  /** The demand; undefined: the server has not sent it. */
  get demand(): DemandMessage | undefined {
    return this._publication.demand;
  }

  /** Frames that were sent, and that `send` refused. */
  get counts(): { readonly sent: number; readonly dropped: number } {
    return { sent: this._publication.sent, dropped: this._publication.dropped };
  }

  /** Whether a frame that is sent now goes out at once: registered, and the window has room. */
  get room(): boolean {
    return this._publication.room(this._environment.clock.now(), this.link.backlog);
  }

  /**
   * Wait until a frame should be taken: there is room, a viewer, and the demanded rate permits it.
   *
   * Resolves to false when the camera is closed, or `signal` is aborted.
   */
  async ready(signal?: AbortSignal): Promise<boolean> {
    const { clock } = this._environment;
    for (;;) {
      if (this.state.state === "closed" || signal?.aborted) return false;
      const pause = this.room ? this._publication.pauseBeforeFrame(clock.now()) : Infinity;
      if (pause <= 0) return true;
      await new Promise<void>((resolve) => {
        // Checks again without an event: room may also come by time.
        const cancel = clock.timer(() => wake(), Math.min(pause, 1000));
        const wake = (): void => {
          cancel();
          this._waiters.delete(wake);
          signal?.removeEventListener("abort", wake);
          resolve();
        };
        this._waiters.add(wake);
        signal?.addEventListener("abort", wake);
      });
    }
  }

  /**
   * Send a picture: its bytes, or base64 text, which goes out as it is.
   *
   * Returns false when there is no room, or no connection: the picture is dropped, and the next one is newer.
   * Throws a `TypeError` for what is neither bytes nor text, or empty; of a `Blob` give the `arrayBuffer()`.
   */
  send(picture: Uint8Array | ArrayBuffer | string, options: SendOptions = {}): boolean {
    const size = typeof picture === "string" ? picture.length : picture?.byteLength;
    if (!size) throw new TypeError("not bytes or base64"); // a Blob, too: its bytes are a promise
    if (!this.room || size >= this._tooLarge) {
      this._publication.dropped++;
      return false;
    }
    const { clock } = this._environment;
    const timestamp = Math.trunc(options.timestamp ?? clock.wall());
    if (typeof picture === "string") {
      if (!this.link.send({ type: "video-frame", streamId: this.streamId, data: picture, timestamp })) return false;
    } else {
      const bytes = picture instanceof Uint8Array ? picture : new Uint8Array(picture);
      if (!this.link.send(encodeFrame(bytes, timestamp, options.codec ?? codecOf(bytes)))) return false;
    }
    this._largest = Math.max(this._largest, size);
    this._publication.onSent(timestamp, clock.now());
    return true;
  }

  /**
   * Raise an alert about this stream; without a connection it waits for the next one. It is delivered once, even if it has to be
   * sent again.
   *
   * Resolves to the alert's id when the server has confirmed it. Rejects with a `WatchoutError` when it is refused or the
   * camera is closed; a caller that ignores the promise gets no unhandled rejection.
   */
  alert(severity: Severity, message: string, options: AlertOptions = {}): Promise<string> {
    const { id = this._newId(), timestamp = Math.trunc(this._environment.clock.wall()), ...more } = options;
    const done = new Promise<string>((resolve, reject) => this._alertWaiters.set(id, { resolve, reject }));
    done.catch(() => undefined);
    const alert: RaiseAlertMessage & { id: string } = { type: "alert", severity, message, id, timestamp, ...more };
    let error = this.state.state === "closed" ? this.state.reason : undefined;
    try {
      if (JSON.stringify(alert).length > MOST_ALERT_LENGTH) throw `over ${MOST_ALERT_LENGTH} characters`;
    } catch (cause) {
      error = new WatchoutError("INVALID_MESSAGE", `not an alert: ${cause}`);
    }
    if (error !== undefined) this._carryOut({ do: "alertDone", id, error });
    else this.link.act(() => this._publication.raise(alert));
    return done;
  }

  /** Acknowledge an alert of this stream; all who received it are notified. */
  acknowledge(alertId: string, note?: string): boolean {
    const { streamId } = this;
    if (streamId === undefined) return false;
    return this.link.send({ type: "acknowledge", streamId, alertId, note, requestId: this.link.requestId() });
  }

  close(): void {
    if (this.state.reason?.code === "CLOSED") return;
    this.link.act(() => this.link.connection.close(new WatchoutError("CLOSED", "camera closed")));
  }

  private _onMessage(message: ServerMessage, now: number): void {
    this._publication.onMessage(message, now);
    if (message.type === "status") {
      this._currentStatus = message.status;
      this._fire("status", message.status);
    } else if (message.type === "alert-acknowledged") this._fire("acknowledged", message);
    else if (message.type === "alert") this._onAlert(message);
  }

  private _onAlert(alert: AlertMessage): void {
    if (this._seen.add(alert.id)) this._fire("alert", { ...alert, recovered: true });
  }

  private _onState(event: StateEvent): void {
    if (event.reason?.closeCode === 1009 && this._largest > 0) this._tooLarge = this._largest;
    if (event.state !== "online") this._largest = 0;
    if (event.state === "closed") {
      const error = event.reason as WatchoutError;
      for (const id of [...this._alertWaiters.keys()]) this._carryOut({ do: "alertDone", id, error });
      if (error.code !== "CLOSED") this._fire("error", error);
    }
    this._wakeAll();
    this._onChange(this);
    this._fire("state", event);
  }

  private _carryOut(command: CameraCommand): void {
    switch (command.do) {
      case "send":
        this.link.send(command.message);
        return;
      case "registered":
        this.link.act((now) => this.link.connection.onSession(now));
        return this._fire("registered", { streamId: command.streamId });
      case "room":
        this._wakeAll();
        if (command.taken !== undefined) this._fire("taken", { timestamp: command.taken });
        return this._fire("room", undefined);
      case "demand":
        return this._fire("demand", command.demand);
      case "alertDone": {
        const waiter = this._alertWaiters.get(command.id);
        this._alertWaiters.delete(command.id);
        if (command.error === undefined) waiter?.resolve(command.id);
        else waiter?.reject(command.error);
        return;
      }
      case "error":
        return this._fire("error", command.error);
      case "fail":
        return this.link.act(() => this.link.connection.close(command.error));
    }
  }

  private _wakeAll(): void {
    for (const wake of [...this._waiters]) wake();
  }

  private _newId(): string {
    const part = (): string => Math.floor(this._environment.random() * 2 ** 52).toString(36);
    return `${part()}-${part()}-${++this._idCount}`;
  }
}

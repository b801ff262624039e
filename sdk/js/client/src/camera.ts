/** A camera: publishes the frames of one stream over a socket of its own. */

import { type CameraCommand, Publication } from "./core/publication.js";
import { SeenIds } from "./core/seen.js";
import { WatchoutError } from "./errors.js";
import { Emitter } from "./events.js";
import { type Environment, Link, type Session } from "./link.js";
import type { AlertMessage, DemandMessage, ServerMessage, Severity, StreamStatus } from "./messages.js";
import type { AlertOptions, CameraEvents, CameraOptions, SendOptions, StateEvent } from "./types.js";
import { codecOf, encodeFrame } from "./wire.js";

export class Camera extends Emitter<CameraEvents> {
  /** @internal */
  readonly link: Link;
  private readonly publication: Publication;
  private readonly seen = new SeenIds(4096);
  private currentState: StateEvent = { state: "idle" };
  private currentStatus: StreamStatus | undefined;
  private readonly alertWaiters = new Map<string, { resolve(id: string): void; reject(error: WatchoutError): void }>();
  private readonly waiters = new Set<() => void>();
  private idCount = 0;

  /** @internal */
  constructor(
    private readonly environment: Environment,
    options: CameraOptions,
    private readonly onChange: (camera: Camera) => void,
  ) {
    super();
    const { streamId, info, window = 2, alerts = true } = options;
    if (!Number.isInteger(window) || window < 1 || window > 32) throw new RangeError(`window is 1 to 32, not ${window}`);
    const camera = this;
    const session: Session = {
      get deadline() {
        return camera.publication.deadline;
      },
      onReady: (now) => this.publication.onReady(now),
      onLost: () => {
        this.publication.onLost();
        this.currentStatus = undefined;
      },
      onMessage: (message, now) => this.onMessage(message, now),
      onState: (event) => this.onState(event),
      onError: (error) => this.fire("error", error),
      tick: (now) => this.publication.tick(now),
    };
    this.link = new Link(environment, "/streams/register", session);
    const link = this.link;
    const wire = {
      requestId: () => link.connection.requestId(),
      get pingEvery() {
        return link.pingEvery;
      },
    };
    this.publication = new Publication({ streamId, info, window, alerts }, wire, environment.random, (command) => this.carryOut(command));
    link.act((now) => link.connection.start(now));
  }

  /** The stream; undefined until the server made an id for it. */
  get streamId(): string | undefined {
    return this.publication.streamId;
  }

  get state(): StateEvent {
    return this.currentState;
  }

  get status(): StreamStatus | undefined {
    return this.currentStatus;
  }

  /** What is worth sending; undefined: the server did not say. */
  get demand(): DemandMessage | undefined {
    return this.publication.demand;
  }

  /** Frames that were sent, and that `send` refused. */
  get counts(): { readonly sent: number; readonly dropped: number } {
    return { sent: this.publication.sent, dropped: this.publication.dropped };
  }

  /** Whether a frame that is sent now goes out at once: registered, and the window has room. */
  get room(): boolean {
    return this.publication.room(this.environment.clock.now(), this.link.backlog);
  }

  /**
   * Wait until a frame is worth taking: there is room, somebody watches, and the demanded rate permits it.
   *
   * Resolves to false when the camera is closed, or `signal` is aborted.
   */
  async ready(signal?: AbortSignal): Promise<boolean> {
    const { clock } = this.environment;
    for (;;) {
      if (this.currentState.state === "closed" || signal?.aborted) return false;
      const pause = this.room ? this.publication.pauseBeforeFrame(clock.now()) : Infinity;
      if (pause <= 0) return true;
      await new Promise<void>((resolve) => {
        // Without news it looks again: a window that is stuck opens by time.
        const cancel = clock.timer(() => wake(), Math.min(pause, 1000));
        const wake = (): void => {
          cancel();
          this.waiters.delete(wake);
          signal?.removeEventListener("abort", wake);
          resolve();
        };
        this.waiters.add(wake);
        signal?.addEventListener("abort", wake);
      });
    }
  }

  /**
   * Send a picture: its bytes, or base64 text, which goes out as it is.
   *
   * Returns false when there is no room, or no connection: the picture is dropped, and the next one is newer.
   */
  send(picture: Uint8Array | ArrayBuffer | string, options: SendOptions = {}): boolean {
    if (!this.room) {
      this.publication.dropped++;
      return false;
    }
    const { clock } = this.environment;
    const timestamp = Math.trunc(options.timestamp ?? clock.wall());
    if (typeof picture === "string") {
      if (!this.link.send({ type: "video-frame", streamId: this.streamId, data: picture, timestamp })) return false;
    } else {
      const bytes = picture instanceof Uint8Array ? picture : new Uint8Array(picture);
      if (!this.link.send(encodeFrame(bytes, timestamp, options.codec ?? codecOf(bytes)))) return false;
    }
    this.publication.onSent(timestamp, clock.now());
    return true;
  }

  /**
   * Raise an alert about this stream; without a connection it waits for the next one. Sent again, it has one effect.
   *
   * Resolves to the alert's id when the server has it. Rejects with a `WatchoutError` when it is refused or the camera
   * is closed; nobody has to listen.
   */
  alert(severity: Severity, message: string, options: AlertOptions = {}): Promise<string> {
    const { id = this.newId(), timestamp = Math.trunc(this.environment.clock.wall()), ...more } = options;
    const done = new Promise<string>((resolve, reject) => this.alertWaiters.set(id, { resolve, reject }));
    done.catch(() => undefined);
    if (this.currentState.state === "closed") this.carryOut({ do: "alertDone", id, error: closedError(this.currentState) });
    else this.link.act(() => this.publication.raise({ type: "alert", severity, message, id, timestamp, ...more }));
    return done;
  }

  /** Acknowledge an alert of this stream, for everybody. */
  acknowledge(alertId: string, note?: string): boolean {
    const { streamId } = this;
    if (streamId === undefined) return false;
    return this.link.send({ type: "acknowledge", streamId, alertId, note, requestId: this.link.connection.requestId() });
  }

  close(): void {
    this.link.act(() => this.link.connection.close(new WatchoutError("CLOSED", "this camera was closed")));
  }

  private onMessage(message: ServerMessage, now: number): void {
    this.publication.onMessage(message, now);
    if (message.type === "status") {
      this.currentStatus = message.status;
      this.fire("status", message.status);
    } else if (message.type === "alert-acknowledged") this.fire("acknowledged", message);
    else if (message.type === "alert") this.onAlert(message);
  }

  private onAlert(alert: AlertMessage): void {
    if (this.seen.add(alert.id)) this.fire("alert", { ...alert, recovered: true });
  }

  private onState(event: StateEvent): void {
    this.currentState = event;
    if (event.state === "closed") {
      const error = closedError(event);
      for (const id of [...this.alertWaiters.keys()]) this.carryOut({ do: "alertDone", id, error });
      if (error.code !== "CLOSED") this.fire("error", error);
    }
    this.wakeAll();
    this.onChange(this);
    this.fire("state", event);
  }

  private carryOut(command: CameraCommand): void {
    switch (command.do) {
      case "send":
        this.link.send(command.message);
        return;
      case "registered":
        this.link.act((now) => this.link.connection.onSession(now));
        return this.fire("registered", { streamId: command.streamId });
      case "room":
        this.wakeAll();
        return this.fire("room", undefined);
      case "demand":
        return this.fire("demand", command.demand);
      case "alertDone": {
        const waiter = this.alertWaiters.get(command.id);
        this.alertWaiters.delete(command.id);
        if (command.error === undefined) waiter?.resolve(command.id);
        else waiter?.reject(command.error);
        return;
      }
      case "error":
        return this.fire("error", command.error);
      case "fail":
        return this.link.act(() => this.link.connection.close(command.error));
    }
  }

  private wakeAll(): void {
    for (const wake of [...this.waiters]) wake();
  }

  private newId(): string {
    const part = (): string => Math.floor(this.environment.random() * 2 ** 52).toString(36);
    return `${part()}-${part()}-${++this.idCount}`;
  }
}

function closedError(event: StateEvent): WatchoutError {
  return event.reason ?? new WatchoutError("CLOSED", "this camera was closed");
}

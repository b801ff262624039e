/** One camera on its socket: registration, window, demand, alerts that must arrive. Pure. */

import { WatchoutError, errorOf } from "../errors.js";
import type { ClientMessage, DemandMessage, RaiseAlertMessage, RegisterMessage, ServerMessage } from "../messages.js";
import { Pace } from "./rate.js";

export type CameraCommand =
  | { readonly do: "send"; readonly message: ClientMessage }
  /** The registration stands. `first`: the stream's id was not known before. */
  | { readonly do: "registered"; readonly streamId: string; readonly first: boolean }
  /** There may be room for a frame now. */
  | { readonly do: "room" }
  | { readonly do: "demand"; readonly demand: DemandMessage }
  /** An alert arrived at the server, or was given up. */
  | { readonly do: "alertDone"; readonly id: string; readonly error: WatchoutError | undefined }
  | { readonly do: "error"; readonly error: WatchoutError }
  /** This camera may not publish: stay closed. */
  | { readonly do: "fail"; readonly error: WatchoutError };

/** Alerts that wait for the server at one time. */
const MOST_ALERTS = 100;
/** A frame without an acknowledgement counts as under way for so long, in ms, while nothing else is acknowledged. */
const UNACKED_MS = 10_000;
const ANSWER_MS = 10_000;

export class Publication {
  streamId: string | undefined;
  demand: DemandMessage | undefined;
  registered = false;
  /** Frames that were sent, and that were not because there was no room. */
  sent = 0;
  dropped = 0;

  private connected = false;
  /** Whether the server acknowledges frames; an older one does not. */
  private acknowledges = false;
  private readonly unacked: number[] = [];
  private progressAt = 0;
  private pendingId: string | undefined;
  /** When to register again: no answer came, or "try again" did. */
  private retryAt = Infinity;
  private retries = 0;
  private readonly alerts = new Map<string, { readonly message: RaiseAlertMessage; requestId: string | undefined }>();
  private readonly pace = new Pace();

  constructor(
    private readonly wishes: {
      readonly streamId: string | undefined;
      readonly info: Readonly<Record<string, unknown>> | undefined;
      readonly window: number;
      readonly alerts: boolean;
    },
    private readonly wire: { requestId(): string; readonly pingEvery: number | undefined },
    private readonly random: () => number,
    private readonly emit: (command: CameraCommand) => void,
  ) {
    this.streamId = wishes.streamId;
  }

  get deadline(): number {
    return this.connected ? this.retryAt : Infinity;
  }

  /** Whether the window has room; `backlog`: bytes that wait in the socket, for servers that do not acknowledge. */
  room(now: number, backlog: number): boolean {
    if (!this.registered) return false;
    if (!this.acknowledges) return backlog < 64 * 1024;
    if (this.unacked.length > 0 && now - this.progressAt >= UNACKED_MS) {
      this.unacked.shift(); // a frame that was refused is not acknowledged
      this.progressAt = now;
    }
    return this.unacked.length < this.wishes.window;
  }

  /** How long to wait until a frame is wanted, in ms, at the demanded rate; Infinity: nobody watches. */
  pauseBeforeFrame(now: number): number {
    if (this.demand?.fps === 0) return Infinity;
    return this.pace.wait(this.demand?.fps, now);
  }

  /** A frame goes out. */
  onSent(timestamp: number, now: number): void {
    this.sent++;
    this.pace.take(this.demand?.fps || undefined, now);
    if (!this.acknowledges) return;
    if (this.unacked.length === 0) this.progressAt = now;
    this.unacked.push(Math.trunc(timestamp));
  }

  onReady(now: number): void {
    this.connected = true;
    this.register(now);
  }

  onLost(): void {
    this.connected = this.registered = this.acknowledges = false;
    this.pendingId = undefined;
    this.retryAt = Infinity;
    this.unacked.length = 0;
    this.demand = undefined;
    for (const each of this.alerts.values()) each.requestId = undefined;
  }

  tick(now: number): void {
    if (this.connected && now >= this.retryAt) this.register(now);
  }

  /** Send an alert now, or when the registration stands again; until it arrived, or the server refuses it. */
  raise(message: RaiseAlertMessage & { readonly id: string }): void {
    if (this.alerts.size >= MOST_ALERTS) {
      const error = new WatchoutError("RATE_LIMITED", `${MOST_ALERTS} alerts wait for the server already`);
      return this.emit({ do: "alertDone", id: message.id, error });
    }
    this.alerts.set(message.id, { message, requestId: undefined });
    if (this.registered) this.sendAlerts();
  }

  onMessage(message: ServerMessage, now: number): void {
    switch (message.type) {
      case "success":
        if (message.event === "registered") this.onRegistered(message, now);
        else if (message.requestId !== undefined) this.endAlert((each) => each.requestId === message.requestId, undefined);
        return;
      case "ack":
        return this.onAck(message.timestamp, now);
      case "demand":
        this.demand = message;
        this.emit({ do: "demand", demand: message });
        return this.emit({ do: "room" });
      case "alert":
        return this.endAlert((each) => each.message.id === message.id, undefined);
      case "error":
        return this.onError(message, now);
    }
  }

  private register(now: number): void {
    this.pendingId = this.wire.requestId();
    this.retryAt = now + ANSWER_MS;
    const { info, window, alerts } = this.wishes;
    const message: RegisterMessage = {
      type: "register",
      streamId: this.streamId,
      produces: ["video-frame", "alert"],
      consumes: alerts ? ["alert", "demand"] : ["demand"],
      window,
      info,
      pingEvery: this.wire.pingEvery,
      requestId: this.pendingId,
    };
    this.emit({ do: "send", message });
  }

  private onRegistered(message: Extract<ServerMessage, { type: "success" }>, now: number): void {
    if (message.streamId === undefined || !this.connected) return;
    const first = this.streamId === undefined;
    this.streamId = message.streamId;
    this.acknowledges = message.requestId !== undefined;
    this.registered = true;
    this.pendingId = undefined;
    this.retryAt = Infinity;
    this.retries = 0;
    this.progressAt = now;
    this.emit({ do: "registered", streamId: message.streamId, first });
    this.sendAlerts();
    this.emit({ do: "room" });
  }

  private onAck(timestamp: number, now: number): void {
    const at = this.unacked.lastIndexOf(timestamp);
    this.unacked.splice(0, at < 0 ? 1 : at + 1);
    this.progressAt = now;
    this.emit({ do: "room" });
  }

  private onError(message: Extract<ServerMessage, { type: "error" }>, now: number): void {
    const { code, requestId } = message;
    const error = errorOf(message, this.streamId);
    const { retryable } = error;
    const aboutRegister = requestId === undefined ? !this.registered : requestId === this.pendingId;
    if (aboutRegister) {
      if (!retryable) return this.emit({ do: "fail", error });
      this.retryAt = now + (0.5 + this.random() / 2) * Math.min(30_000, 1000 * 2 ** this.retries++);
      return this.emit({ do: "error", error });
    }
    if (requestId !== undefined && !retryable) this.endAlert((each) => each.requestId === requestId, error);
    // An answer to no request, about this very stream: the right to publish ended.
    if (code === "UNAUTHORIZED" && requestId === undefined && message.streamId === this.streamId && this.acknowledges)
      return this.emit({ do: "fail", error });
    this.emit({ do: "error", error });
  }

  private sendAlerts(): void {
    for (const each of this.alerts.values()) {
      if (each.requestId !== undefined) continue;
      each.requestId = this.wire.requestId();
      this.emit({ do: "send", message: { ...each.message, requestId: each.requestId } });
      // An older server confirms nothing, and a camera that receives no alerts cannot see its own come back.
      if (!this.acknowledges && !this.wishes.alerts) this.endAlert((other) => other === each, undefined);
    }
  }

  private endAlert(
    match: (each: { readonly message: RaiseAlertMessage; requestId: string | undefined }) => boolean,
    error: WatchoutError | undefined,
  ): void {
    for (const [id, each] of this.alerts)
      if (match(each)) {
        this.alerts.delete(id);
        this.emit({ do: "alertDone", id, error });
      }
  }
}

/** One camera on its socket: registration, window, demand, and alerts, which are sent until confirmed. Pure. */

import { WatchoutError, errorOf } from "../errors.js";
import type { ClientMessage, DemandMessage, RaiseAlertMessage, RegisterMessage, ServerMessage } from "../messages.js";
import { Pace } from "./rate.js";

export type CameraCommand =
  | { readonly do: "send"; readonly message: ClientMessage }
  /** The registration is confirmed. `first`: the stream's id was not known before. */
  | { readonly do: "registered"; readonly streamId: string; readonly first: boolean }
  /** There may be room for a frame now; `taken`: the server has all frames up to the one with this timestamp. */
  | { readonly do: "room"; readonly taken?: number }
  | { readonly do: "demand"; readonly demand: DemandMessage }
  /** An alert was confirmed, or failed. */
  | { readonly do: "alertDone"; readonly id: string; readonly error: WatchoutError | undefined }
  | { readonly do: "error"; readonly error: WatchoutError }
  /** This camera may not publish: stay closed. */
  | { readonly do: "fail"; readonly error: WatchoutError };

/** Most alerts that wait for their confirmation. */
const MOST_ALERTS = 100;
/** A frame without an acknowledgement counts as under way for this long, in ms, while no other is acknowledged. */
const UNACKED_MS = 10_000;
const ANSWER_MS = 10_000;
/** Frame rate for a server that sends neither acknowledgements nor demand. */
const FPS_UNPACED = 15;
/**
 * After a frame that was acknowledged later than the first time, in ms, one frame at a time is sent: on a slow uplink a second
 * one would only wait. After one that took less than the second time, the whole window is used again.
 */
const SLOW_MS = 600;
const QUICK_MS = 250;

export class Publication {
  streamId: string | undefined;
  demand: DemandMessage | undefined;
  registered = false;
  /** Frames that were sent, and frames that were dropped because there was no room. */
  sent = 0;
  dropped = 0;

  private _connected = false;
  /** Whether the server acknowledges frames; an older one does not. */
  private _acknowledges = false;
  private readonly _unacked: { readonly timestamp: number; readonly at: number }[] = [];
  /** Undefined until the first acknowledgement; until then one frame at a time is sent. */
  private _slow: boolean | undefined;
  private _progressAt = 0;
  private _pendingId: string | undefined;
  /** When to register again: there was no answer, or one that asks to try again. */
  private _retryAt = Infinity;
  private _retries = 0;
  private readonly _alerts = new Map<string, { readonly message: RaiseAlertMessage; requestId: string | undefined }>();
  private readonly _pace = new Pace();

  constructor(
    private readonly _wishes: {
      readonly streamId: string | undefined;
      readonly info: Readonly<Record<string, unknown>> | undefined;
      readonly window: number;
      readonly alerts: boolean;
    },
    private readonly _wire: { requestId(): string; readonly pingEvery: number | undefined },
    private readonly _random: () => number,
    private readonly _emit: (command: CameraCommand) => void,
  ) {
    this.streamId = _wishes.streamId;
  }

  get deadline(): number {
    return this._connected ? this._retryAt : Infinity;
  }

  /** Whether the window has room; `backlog`: bytes that wait in the socket, for servers that do not acknowledge. */
  room(now: number, backlog: number): boolean {
    if (!this.registered || backlog === Infinity) return false;
    if (!this._acknowledges) return backlog < 64 * 1024;
    if (this._unacked.length > 0 && now - this._progressAt >= UNACKED_MS) {
      this._unacked.shift(); // a frame that was refused is not acknowledged
      this._progressAt = now;
    }
    return this._unacked.length < (this._slow === false ? this._wishes.window : 1);
  }

  /** Time until a frame is wanted at the demanded rate, in ms; Infinity: there is no viewer. */
  pauseBeforeFrame(now: number): number {
    const fps = this._fps();
    return fps === 0 ? Infinity : this._pace.wait(fps, now);
  }

  /** Record a frame that is sent. */
  onSent(timestamp: number, now: number): void {
    this.sent++;
    this._pace.take(this._fps() || undefined, now);
    if (!this._acknowledges) return;
    if (this._unacked.length === 0) this._progressAt = now;
    this._unacked.push({ timestamp: Math.trunc(timestamp), at: now });
  }

  onReady(now: number): void {
    this._connected = true;
    this._register(now);
  }

  onLost(): void {
    this._connected = this.registered = this._acknowledges = false;
    this._pendingId = undefined;
    this._retryAt = Infinity;
    this._unacked.length = 0;
    this.demand = this._slow = undefined;
    for (const each of this._alerts.values()) each.requestId = undefined;
  }

  tick(now: number): void {
    if (this._connected && now >= this._retryAt) this._register(now);
  }

  /** Send an alert now or after the next registration, again until the server confirms or refuses it. */
  raise(message: RaiseAlertMessage & { readonly id: string }): void {
    if (this._alerts.size >= MOST_ALERTS) {
      const error = new WatchoutError("RATE_LIMITED", `${MOST_ALERTS} alerts wait already`);
      return this._emit({ do: "alertDone", id: message.id, error });
    }
    this._alerts.set(message.id, { message, requestId: undefined });
    if (this.registered) this._sendAlerts();
  }

  onMessage(message: ServerMessage, now: number): void {
    switch (message.type) {
      case "success":
        if (message.event === "registered") this._onRegistered(message, now);
        else if (message.requestId !== undefined) this._endAlert((each) => each.requestId === message.requestId, undefined);
        return;
      case "ack":
        return this._onAck(message.timestamp, now);
      case "demand":
        this.demand = message;
        this._emit({ do: "demand", demand: message });
        return this._emit({ do: "room" });
      case "alert":
        return this._endAlert((each) => each.message.id === message.id, undefined);
      case "error":
        return this._onError(message, now);
    }
  }

  /** The demanded rate; undefined: no limit but the window. */
  private _fps(): number | undefined {
    return this.demand?.fps ?? (this._acknowledges ? undefined : FPS_UNPACED);
  }

  private _register(now: number): void {
    this._pendingId = this._wire.requestId();
    this._retryAt = now + ANSWER_MS;
    const { info, window, alerts } = this._wishes;
    const message: RegisterMessage = {
      type: "register",
      streamId: this.streamId,
      produces: ["video-frame", "alert"],
      consumes: alerts ? ["alert", "demand"] : ["demand"],
      window,
      info,
      pingEvery: this._wire.pingEvery,
      requestId: this._pendingId,
    };
    this._emit({ do: "send", message });
  }

  private _onRegistered(message: Extract<ServerMessage, { type: "success" }>, now: number): void {
    if (message.streamId === undefined || !this._connected) return;
    const first = this.streamId === undefined;
    this.streamId = message.streamId;
    this._acknowledges = message.requestId !== undefined;
    this.registered = true;
    this._pendingId = undefined;
    this._retryAt = Infinity;
    this._retries = 0;
    this._progressAt = now;
    this._emit({ do: "registered", streamId: message.streamId, first });
    this._sendAlerts();
    this._emit({ do: "room" });
  }

  private _onAck(timestamp: number, now: number): void {
    const last = this._unacked.map((each) => each.timestamp).lastIndexOf(timestamp);
    const frame = this._unacked.splice(0, Math.max(last, 0) + 1).at(-1);
    if (frame !== undefined) this._slow = now - frame.at > (this._slow ? QUICK_MS : SLOW_MS);
    this._progressAt = now;
    this._emit({ do: "room", taken: timestamp });
  }

  private _onError(message: Extract<ServerMessage, { type: "error" }>, now: number): void {
    const { code, requestId } = message;
    const error = errorOf(message, this.streamId);
    const { retryable } = error;
    const aboutRegister = requestId === undefined ? !this.registered : requestId === this._pendingId;
    if (aboutRegister) {
      if (!retryable) return this._emit({ do: "fail", error });
      this._retryAt = now + (0.5 + this._random() / 2) * Math.min(30_000, 1000 * 2 ** this._retries++);
      return this._emit({ do: "error", error });
    }
    if (requestId !== undefined && !retryable) this._endAlert((each) => each.requestId === requestId, error);
    // An error about this stream that answers no request: the permission to publish ended.
    if (code === "UNAUTHORIZED" && requestId === undefined && message.streamId === this.streamId && this._acknowledges)
      return this._emit({ do: "fail", error });
    this._emit({ do: "error", error });
  }

  private _sendAlerts(): void {
    for (const each of this._alerts.values()) {
      if (each.requestId !== undefined) continue;
      each.requestId = this._wire.requestId();
      this._emit({ do: "send", message: { ...each.message, requestId: each.requestId } });
      // An older server confirms nothing, and a camera that receives no alerts cannot see its own come back.
      if (!this._acknowledges && !this._wishes.alerts) this._endAlert((other) => other === each, undefined);
    }
  }

  private _endAlert(
    match: (each: { readonly message: RaiseAlertMessage; requestId: string | undefined }) => boolean,
    error: WatchoutError | undefined,
  ): void {
    for (const [id, each] of this._alerts)
      if (match(each)) {
        this._alerts.delete(id);
        this._emit({ do: "alertDone", id, error });
      }
  }
}

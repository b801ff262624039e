/** One view of one stream. */

import { ViewMember, type ViewSink, type Wish } from "./core/subscriptions.js";
import { WatchoutError } from "./errors.js";
import { Emitter } from "./events.js";
import type { AlertAcknowledgedMessage } from "./messages.js";
import { Queue } from "./queue.js";
import type { Alert, Frame, ViewEvents, ViewOptions, ViewStatus } from "./types.js";

/** The part of the client that a view uses. */
export interface ViewHost {
  /** What this view wants has changed. */
  changed(): void;
  remove(view: View): void;
  /** This view has used a frame. */
  taken(streamId: string, frameId: number): void;
  fps(streamId: string): number;
  acknowledge(streamId: string, alertId: string, note?: string): void;
  retry(streamId: string): void;
}

/** Most alerts that wait for a reader; past it the oldest is dropped, and the next one has `recovered: false`. */
const MOST_ALERTS = 1000;

export class View extends Emitter<ViewEvents> {
  readonly streamId: string;
  /** The newest frame that arrived. */
  lastFrame: Frame | undefined;
  /** Frames that arrived, and those of them that were replaced by a newer one before they were taken. */
  received = 0;
  replaced = 0;
  /** Why frames and alerts ended for good; undefined: they have not. */
  error: WatchoutError | undefined;
  /** @internal */
  readonly member: ViewMember;
  /** @internal Called with the number of loops over `frames()` when one begins or ends. */
  onReaders: ((count: number) => void) | undefined;

  private _currentStatus: ViewStatus = "waiting";
  private _currentInfo: Readonly<Record<string, unknown>> | undefined;
  private _isPaused = false;
  private _options: ViewOptions;
  private readonly _frameReaders = new Set<Queue<Frame>>();
  private readonly _alertReaders = new Set<Queue<Alert>>();
  private _early: Alert[] = [];

  /** @internal */
  constructor(
    private readonly _host: ViewHost,
    streamId: string,
    options: ViewOptions,
  ) {
    super();
    this.streamId = streamId;
    this._options = checked(options);
    const sink: ViewSink = {
      onStatus: (status, info) => this._onStatus(status, info),
      onFrame: (frame) => this._onFrame(frame),
      onAlert: (alert) => this._onAlert(alert),
      onAcknowledged: (message: AlertAcknowledgedMessage) => this._fire("acknowledged", message),
      onRecovery: (event) => this._fire("recovery", event),
      onError: (error) => this._onError(error),
    };
    this.member = new ViewMember(streamId, this._wish(), sink, options.alertsSince);
  }

  get status(): ViewStatus {
    return this._currentStatus;
  }

  /** What the camera said about itself at its registration. */
  get info(): Readonly<Record<string, unknown>> | undefined {
    return this._currentInfo;
  }

  get paused(): boolean {
    return this._isPaused;
  }

  /** Frames per second that arrive now. */
  get fps(): number {
    return this._host.fps(this.streamId);
  }

  /**
   * The frames of the stream, always the newest. A frame is acknowledged when the loop asks for the next one, so that a slow
   * loop gets fewer frames, never old ones. The loop ends with `close()`, and throws when the view has ended for good.
   */
  frames(): AsyncIterableIterator<Frame> {
    let taken: Frame | undefined;
    const done = (): void => {
      if (taken !== undefined) this._host.taken(this.streamId, taken.frameId);
      taken = undefined;
    };
    const reader = new Queue<Frame>(1, {
      onNext: done,
      onTake: (frame) => (taken = frame),
      onDrop: () => this.replaced++,
      onEnd: () => {
        done();
        this._frameReaders.delete(reader);
        this.onReaders?.(this._frameReaders.size);
        this._changed();
      },
    });
    this._frameReaders.add(reader);
    this.onReaders?.(this._frameReaders.size);
    if (!this._endIfOver(reader)) this._changed();
    return reader;
  }

  /** The alerts of the stream, each once and in order. Alerts that arrived before the first call are included. */
  alerts(): AsyncIterableIterator<Alert> {
    const reader = new Queue<Alert>(MOST_ALERTS, {
      onDrop: (_, next) => {
        if (next !== undefined) Object.assign(next, { recovered: false });
      },
      onEnd: () => this._alertReaders.delete(reader),
    });
    for (const alert of this._early.splice(0)) reader.push({ ...alert });
    this._alertReaders.add(reader);
    this._endIfOver(reader);
    return reader;
  }

  /** Receive no frames until `resume`; alerts and status continue. */
  pause(): void {
    this._isPaused = true;
    this._changed();
  }

  /** Receive frames again; the newest one is sent at once. */
  resume(): void {
    this._isPaused = false;
    this._changed();
  }

  /** Change rate, window or format, or whether frames and alerts are received. `alertsSince` stays. */
  update(options: Omit<ViewOptions, "alertsSince">): void {
    this._options = checked({ ...this._options, ...options });
    this._changed();
  }

  /** Subscribe again after a refusal. */
  retry(): void {
    if (this._currentStatus === "closed") return;
    this.error = undefined;
    this._host.retry(this.streamId);
  }

  /** Acknowledge an alert of the stream; all who received it are notified. */
  acknowledge(alertId: string, note?: string): void {
    this._host.acknowledge(this.streamId, alertId, note);
  }

  close(): void {
    if (this._currentStatus === "closed") return;
    this._onStatus("closed", this._currentInfo);
    this.end(undefined);
    this._host.remove(this);
  }

  /** @internal The connection is closed for good; `error` undefined: by the app. */
  end(error: WatchoutError | undefined): void {
    this.error = error;
    for (const reader of [...this._frameReaders, ...this._alertReaders]) reader.end(error);
  }

  private _endIfOver(reader: Queue<Frame> | Queue<Alert>): boolean {
    const over = this._currentStatus === "closed" || this.error !== undefined;
    if (over) reader.end(this.error);
    return over;
  }

  private _wish(): Wish {
    const { maxFps, window = "auto", frames = this._frameReaders?.size > 0, alerts = true, format = "binary" } = this._options;
    return { frames: frames && !this._isPaused, alerts, maxFps, window, format };
  }

  private _changed(): void {
    this.member.wish = this._wish();
    this._host.changed();
  }

  private _onStatus(status: ViewStatus, info: Readonly<Record<string, unknown>> | undefined): void {
    if (this._currentStatus === "closed" || (status === this._currentStatus && info === this._currentInfo)) return;
    this._currentInfo = info;
    this._currentStatus = status;
    if (status !== "forbidden" && status !== "closed" && status !== "waiting") this.error = undefined;
    this._fire("status", status);
  }

  private _onFrame(frame: Frame): void {
    this.received++;
    this.lastFrame = frame;
    for (const reader of this._frameReaders) reader.push(frame);
    if (this._frameReaders.size === 0) this._host.taken(this.streamId, frame.frameId);
  }

  private _onAlert(alert: Alert): void {
    for (const reader of this._alertReaders) reader.push({ ...alert });
    if (this._alertReaders.size === 0 && !this._listened("alert")) {
      this._early.push(alert);
      if (this._early.length > MOST_ALERTS) {
        this._early.shift();
        this._early[0] = { ...(this._early[0] as Alert), recovered: false };
      }
    }
    this._fire("alert", alert);
  }

  private _onError(error: WatchoutError): void {
    if (!error.retryable && this._currentStatus === "forbidden") this.end(error);
    this._fire("error", error);
  }
}

/** Returns the options. Throws `RangeError` for values that every server refuses. */
function checked(options: ViewOptions): ViewOptions {
  const { maxFps = 1, window = 1, alertsSince = 0 } = options;
  const fits =
    maxFps >= 1e-6 && maxFps <= 1e6 && alertsSince >= 0 && alertsSince < 2 ** 53 &&
    (window === "auto" || (Number.isInteger(window) && window >= 1 && window <= 1e6));
  if (!fits) throw new RangeError(`maxFps, window or alertsSince out of range: ${JSON.stringify(options)}`);
  return options;
}

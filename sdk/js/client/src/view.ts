/** One view of one stream. */

import { ViewMember, type ViewSink, type Wish } from "./core/subscriptions.js";
import { WatchoutError } from "./errors.js";
import { Emitter } from "./events.js";
import type { AlertAcknowledgedMessage } from "./messages.js";
import { Queue } from "./queue.js";
import type { Alert, Frame, ViewEvents, ViewOptions, ViewStatus } from "./types.js";

/** What a view asks of its client. */
export interface ViewHost {
  /** What this view wants has changed. */
  changed(): void;
  remove(view: View): void;
  /** This view is done with a frame. */
  taken(streamId: string, frameId: number): void;
  fps(streamId: string): number;
  acknowledge(streamId: string, alertId: string, note?: string): void;
  retry(streamId: string): void;
}

/** Alerts that wait for a reader at most; beyond them the oldest gives way, and the next says `recovered: false`. */
const MOST_ALERTS = 1000;

export class View extends Emitter<ViewEvents> {
  readonly streamId: string;
  /** The newest frame that arrived. */
  lastFrame: Frame | undefined;
  /** Frames that arrived, and of these the ones that a newer one replaced before they were taken. */
  received = 0;
  replaced = 0;
  /** Why frames and alerts stopped for good; undefined: they did not. */
  error: WatchoutError | undefined;
  /** @internal */
  readonly member: ViewMember;

  private currentStatus: ViewStatus = "waiting";
  private currentInfo: Readonly<Record<string, unknown>> | undefined;
  private isPaused = false;
  private options: ViewOptions;
  private readonly frameReaders = new Set<Queue<Frame>>();
  private readonly alertReaders = new Set<Queue<Alert>>();
  private early: Alert[] = [];

  /** @internal */
  constructor(
    private readonly host: ViewHost,
    streamId: string,
    options: ViewOptions,
  ) {
    super();
    this.streamId = streamId;
    this.options = options;
    const sink: ViewSink = {
      onStatus: (status, info) => this.onStatus(status, info),
      onFrame: (frame) => this.onFrame(frame),
      onAlert: (alert) => this.onAlert(alert),
      onAcknowledged: (message: AlertAcknowledgedMessage) => this.fire("acknowledged", message),
      onRecovery: (event) => this.fire("recovery", event),
      onError: (error) => this.onError(error),
    };
    this.member = new ViewMember(streamId, this.wish(), sink, options.alertsSince);
  }

  get status(): ViewStatus {
    return this.currentStatus;
  }

  /** What the camera says of itself. */
  get info(): Readonly<Record<string, unknown>> | undefined {
    return this.currentInfo;
  }

  get paused(): boolean {
    return this.isPaused;
  }

  /** Frames per second that arrive now. */
  get fps(): number {
    return this.host.fps(this.streamId);
  }

  /**
   * The frames of the stream: always the newest. A frame is acknowledged when the loop asks for the next one, so a slow
   * loop gets fewer frames, and none that is old. The loop ends with `close()`, and throws when the view cannot go on.
   */
  frames(): AsyncIterableIterator<Frame> {
    let taken: Frame | undefined;
    const reader = new Queue<Frame>(1, {
      onNext: () => {
        if (taken !== undefined) this.host.taken(this.streamId, taken.frameId);
        taken = undefined;
      },
      onTake: (frame) => (taken = frame),
      onDrop: () => this.replaced++,
      onEnd: () => {
        if (taken !== undefined) this.host.taken(this.streamId, taken.frameId);
        this.frameReaders.delete(reader);
        this.changed();
      },
    });
    this.frameReaders.add(reader);
    if (!this.endIfOver(reader)) this.changed();
    return reader;
  }

  /** The alerts of the stream, each once and in order. Those that came before the first call wait for it. */
  alerts(): AsyncIterableIterator<Alert> {
    const reader = new Queue<Alert>(MOST_ALERTS, {
      onDrop: (_, next) => {
        if (next !== undefined) Object.assign(next, { recovered: false });
      },
      onEnd: () => this.alertReaders.delete(reader),
    });
    for (const alert of this.early.splice(0)) reader.push({ ...alert });
    this.alertReaders.add(reader);
    this.endIfOver(reader);
    return reader;
  }

  /** No frames for now; alerts and status go on. */
  pause(): void {
    this.isPaused = true;
    this.changed();
  }

  /** Frames again; the newest one comes at once. */
  resume(): void {
    this.isPaused = false;
    this.changed();
  }

  /** Change rate, window, format, or what is wanted. `alertsSince` stays. */
  update(options: Omit<ViewOptions, "alertsSince">): void {
    this.options = { ...this.options, ...options };
    this.changed();
  }

  /** Ask again for a stream that was refused. */
  retry(): void {
    if (this.currentStatus === "closed") return;
    this.error = undefined;
    this.host.retry(this.streamId);
  }

  /** Acknowledge an alert of the stream, for everybody. */
  acknowledge(alertId: string, note?: string): void {
    this.host.acknowledge(this.streamId, alertId, note);
  }

  close(): void {
    if (this.currentStatus === "closed") return;
    this.onStatus("closed", this.currentInfo);
    this.end(undefined);
    this.host.remove(this);
  }

  /** @internal The connection is closed for good; `error` undefined: by the app. */
  end(error: WatchoutError | undefined): void {
    this.error = error;
    for (const reader of [...this.frameReaders, ...this.alertReaders]) reader.end(error);
  }

  private endIfOver(reader: Queue<Frame> | Queue<Alert>): boolean {
    const over = this.currentStatus === "closed" || this.error !== undefined;
    if (over) reader.end(this.error);
    return over;
  }

  private wish(): Wish {
    const { maxFps, window = "auto", frames = this.frameReaders?.size > 0, alerts = true, format = "binary" } = this.options;
    return { frames: frames && !this.isPaused, alerts, maxFps, window, format };
  }

  private changed(): void {
    this.member.wish = this.wish();
    this.host.changed();
  }

  private onStatus(status: ViewStatus, info: Readonly<Record<string, unknown>> | undefined): void {
    this.currentInfo = info;
    if (status === this.currentStatus || this.currentStatus === "closed") return;
    this.currentStatus = status;
    if (status !== "forbidden" && status !== "closed" && status !== "waiting") this.error = undefined;
    this.fire("status", status);
  }

  private onFrame(frame: Frame): void {
    this.received++;
    this.lastFrame = frame;
    for (const reader of this.frameReaders) reader.push(frame);
  }

  private onAlert(alert: Alert): void {
    for (const reader of this.alertReaders) reader.push({ ...alert });
    if (this.alertReaders.size === 0 && !this.listened("alert")) {
      this.early.push(alert);
      if (this.early.length > MOST_ALERTS) {
        this.early.shift();
        this.early[0] = { ...(this.early[0] as Alert), recovered: false };
      }
    }
    this.fire("alert", alert);
  }

  private onError(error: WatchoutError): void {
    if (!error.retryable && this.currentStatus === "forbidden") this.end(error);
    this.fire("error", error);
  }
}

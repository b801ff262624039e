/** Publishes a video of this device, at the demanded rate and in a size that the uplink can carry. */

import type { Camera } from "../camera.js";
import type { Encoding } from "./messages.js";
import { Uplink } from "./uplink.js";
import { videoSource, type Encoded, type VideoSource } from "./video-source.js";

/**
 * - `starting`: the encoder is not ready yet
 * - `sending`: pictures go out
 * - `unwanted`: there is no viewer, so nothing is encoded
 * - `waiting`: not connected, or the server has not taken the last pictures yet
 * - `hidden`: this browser encodes nothing in a hidden tab
 * - `ended`: the video ended: the device was unplugged, or the permission withdrawn
 * - `closed`: by `close()`
 */
export type CaptureState = "starting" | "sending" | "unwanted" | "waiting" | "hidden" | "ended" | "closed";

export interface CaptureStatus {
  readonly state: CaptureState;
  /** Pictures per second that were sent lately. */
  readonly fps: number;
  /** Pictures that were encoded, and of these the ones that were sent, so far. */
  readonly encoded: number;
  readonly sent: number;
  /** Size and bytes of the last picture; 0 before the first. */
  readonly width: number;
  readonly height: number;
  readonly bytes: number;
  /** By how many steps size and quality were lowered for a slow uplink; 0: none. */
  readonly lowered: number;
  /** Whether a hidden tab goes on sending. */
  readonly worksHidden: boolean | undefined;
}

export interface CaptureOptions {
  /** Best quality of the JPEGs, 0 to 1. Default 0.8. */
  readonly quality?: number;
  /** Longest side of a picture in pixels. Default 1280. */
  readonly maxWidth?: number;
  /** Highest rate, in pictures per second; viewers may want fewer. Default 30. */
  readonly maxFps?: number;
  /** Whether `close` leaves the tracks of the MediaStream running. Default false: it stops them. */
  readonly keepTracks?: boolean;
  /** Called when the state changes, and otherwise about once a second. */
  readonly onStatus?: (status: CaptureStatus) => void;
}

const TICK_MS = 1_000;
const SPAN_MS = 3_000;

/** Send the video of this MediaStream through the camera until `close`. */
export function capture(camera: Camera, stream: MediaStream, options: CaptureOptions = {}): Capture {
  const [track] = stream.getVideoTracks();
  if (track === undefined) throw new TypeError("the MediaStream has no video track");
  return new Capture(camera, stream, track, options);
}

export class Capture {
  readonly #camera: Camera;
  readonly #stream: MediaStream;
  readonly #options: CaptureOptions;
  readonly #uplink: Uplink;
  readonly #maxFps: number;
  readonly #unlisten: (() => void)[];
  readonly #listeners = new Set<(status: CaptureStatus) => void>();
  readonly #tick: ReturnType<typeof setInterval>;
  #source: VideoSource | undefined;
  #end: "ended" | "closed" | undefined;
  #encoded = 0;
  #sent = 0;
  #sentAt: number[] = [];
  #size = { width: 0, height: 0 };
  #bytes = 0;
  #told: CaptureState | undefined;

  constructor(camera: Camera, stream: MediaStream, track: MediaStreamTrack, options: CaptureOptions) {
    const { quality = 0.8, maxWidth = 1280, maxFps = 30 } = options;
    if (!(quality > 0 && quality <= 1)) throw new RangeError(`quality is above 0 and at most 1, not ${quality}`);
    if (!(maxWidth >= 16)) throw new RangeError(`maxWidth is at least 16 pixels, not ${maxWidth}`);
    if (!(maxFps > 0)) throw new RangeError(`maxFps is above 0, not ${maxFps}`);
    this.#camera = camera;
    this.#stream = stream;
    this.#options = options;
    this.#maxFps = maxFps;
    const { width = maxWidth, height = 0 } = track.getSettings();
    this.#uplink = new Uplink(Math.min(maxWidth, Math.max(width, height)), quality);
    if (options.onStatus !== undefined) this.#listeners.add(options.onStatus);
    const update = (): void => this.#update();
    document.addEventListener("visibilitychange", update);
    this.#unlisten = [
      () => document.removeEventListener("visibilitychange", update),
      camera.on("demand", update),
      camera.on("room", update),
      camera.on("state", () => {
        this.#uplink.restart();
        this.#update();
      }),
      camera.on("taken", ({ timestamp }) => {
        this.#uplink.acknowledged(timestamp, Date.now());
        this.#update();
      }),
    ];
    this.#tick = setInterval(() => this.#tell(), TICK_MS);
    void this.#begin(track);
  }

  /** The present status. */
  get status(): CaptureStatus {
    const now = Date.now();
    while (this.#sentAt.length > 0 && (this.#sentAt[0] as number) < now - SPAN_MS) this.#sentAt.shift();
    return {
      state: this.#state,
      fps: Math.round((this.#sentAt.length / SPAN_MS) * 10_000) / 10,
      encoded: this.#encoded,
      sent: this.#sent,
      ...this.#size,
      bytes: this.#bytes,
      lowered: this.#uplink.step,
      worksHidden: this.#source?.worksHidden,
    };
  }

  /** Call `listener` when the state changes, and about once a second. Returns a function that stops this. */
  on(event: "status", listener: (status: CaptureStatus) => void): () => void {
    if (event !== "status") throw new TypeError(`a capture has the event "status", not ${JSON.stringify(event)}`);
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Send nothing more and stop the tracks: the device's camera light goes out. */
  close(): void {
    if (this.#end === "closed") return;
    this.#finish("closed");
    if (this.#options.keepTracks !== true) for (const track of this.#stream.getTracks()) track.stop();
  }

  get #fps(): number {
    return Math.min(this.#camera.demand?.fps ?? 0, this.#maxFps);
  }

  get #state(): CaptureState {
    if (this.#end !== undefined) return this.#end;
    if (this.#source === undefined) return "starting";
    if (document.hidden && !this.#source.worksHidden) return "hidden";
    if (this.#camera.demand === undefined) return "waiting";
    if (this.#fps === 0) return "unwanted";
    return this.#camera.room ? "sending" : this.#isFlowing ? "sending" : "waiting";
  }

  /** Whether a picture was sent in the last second: on a full uplink there is no room for moments. */
  get #isFlowing(): boolean {
    return (this.#sentAt[this.#sentAt.length - 1] ?? 0) > Date.now() - TICK_MS;
  }

  get #encoding(): Encoding {
    return { fps: this.#fps, ...this.#uplink.encoding };
  }

  async #begin(track: MediaStreamTrack): Promise<void> {
    const source = await videoSource(track, this.#encoding, {
      onPicture: (picture) => this.#send(picture),
      onEnd: () => this.#finish("ended"),
    });
    if (this.#end !== undefined) {
      source.end();
      return;
    }
    this.#source = source;
    this.#update();
  }

  #send({ data, at, size }: Encoded): void {
    if (this.#end !== undefined) return;
    this.#encoded += 1;
    if (this.#camera.room && this.#fps > 0) {
      this.#uplink.sent(at, Date.now());
      this.#camera.send(data, { timestamp: at });
      this.#sent += 1;
      this.#sentAt.push(Date.now());
      this.#size = size;
      this.#bytes = data.byteLength;
    }
    this.#update();
  }

  #update(): void {
    if (this.#end !== undefined) return;
    this.#source?.set(this.#encoding, this.#camera.room);
    if (this.#state !== this.#told) this.#tell();
  }

  #finish(end: "ended" | "closed"): void {
    this.#end = end;
    clearInterval(this.#tick);
    for (const stop of this.#unlisten.splice(0)) stop();
    this.#source?.end();
    this.#source = undefined;
    this.#tell();
    if (end === "closed") this.#listeners.clear();
  }

  #tell(): void {
    const status = this.status;
    this.#told = status.state;
    for (const listener of [...this.#listeners]) listener(status);
  }
}

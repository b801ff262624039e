/** Makes JPEGs of a video track: in the page's worker where the browser can, else with a canvas of the page. */

import type { Size } from "./geometry.js";
import type { Encoding } from "./messages.js";
import { Pace } from "./pace.js";
import { usePageWorker, type PageWorker } from "./page-worker.js";

/** A picture of the video. */
export interface Encoded {
  readonly data: Uint8Array<ArrayBuffer>;
  /** When the camera gave it, ms since the epoch. */
  readonly at: number;
  readonly size: Size;
}

export interface VideoSource {
  /** Whether it continues in a hidden tab. */
  readonly worksHidden: boolean;
  /** Set how the next pictures are encoded, and whether there is room for one; after each picture there is none. */
  set(encoding: Encoding, room: boolean): void;
  end(): void;
}

interface Events {
  onPicture(picture: Encoded): void;
  onEnd(reason: string): void;
}

interface TrackProcessor {
  readonly readable: ReadableStream<VideoFrame>;
}
type TrackProcessorMaker = new (options: { track: MediaStreamTrack }) => TrackProcessor;

/** The best source that this browser has for the track. */
export async function videoSource(track: MediaStreamTrack, encoding: Encoding, events: Events): Promise<VideoSource> {
  const Processor = (globalThis as { MediaStreamTrackProcessor?: TrackProcessorMaker }).MediaStreamTrackProcessor;
  if (Processor !== undefined) {
    const worker = usePageWorker();
    const abilities = await worker?.ready;
    if (worker !== undefined) {
      if (abilities?.encodes) return new WorkerSource(worker, new Processor({ track }), encoding, events);
      worker.release();
    }
  }
  return new CanvasSource(track, encoding, events);
}

class WorkerSource implements VideoSource {
  readonly worksHidden = true;
  readonly #number: number;
  readonly #unlisten: () => void;

  readonly worker: PageWorker;

  constructor(
    worker: PageWorker,
    processor: TrackProcessor,
    encoding: Encoding,
    events: Events,
  ) {
    this.worker = worker;
    this.#number = worker.number();
    this.#unlisten = worker.listen((message) => {
      if (!("capture" in message) || message.capture !== this.#number) return;
      if (message.type === "encoded") {
        events.onPicture({ data: new Uint8Array(message.data), at: message.at, size: message.size });
      } else {
        events.onEnd(message.reason);
      }
    });
    const frames = processor.readable;
    worker.post({ type: "capture", capture: this.#number, frames, encoding }, [frames as unknown as Transferable]);
  }

  set(encoding: Encoding, room: boolean): void {
    this.worker.post({ type: "encode", capture: this.#number, encoding, room });
  }

  end(): void {
    this.#unlisten();
    this.worker.post({ type: "uncapture", capture: this.#number });
    this.worker.release();
  }
}

class CanvasSource implements VideoSource {
  readonly worksHidden = false;
  readonly #video = document.createElement("video");
  readonly #canvas = document.createElement("canvas");
  readonly #pen = this.#canvas.getContext("2d", { alpha: false });
  readonly #pace = new Pace();
  #room = false;
  #busy = false;
  #ended = false;
  #callback = 0;

  readonly track: MediaStreamTrack;
  encoding: Encoding;
  readonly events: Events;

  constructor(
    track: MediaStreamTrack,
    encoding: Encoding,
    events: Events,
  ) {
    this.track = track;
    this.encoding = encoding;
    this.events = events;
    this.#video.muted = true;
    this.#video.playsInline = true;
    this.#video.srcObject = new MediaStream([track]);
    void this.#video.play().catch(() => undefined); // a policy of the browser: it plays when the page is used
    track.addEventListener("ended", this.#onEnded);
    this.#next();
  }

  set(encoding: Encoding, room: boolean): void {
    this.encoding = encoding;
    this.#room = room;
  }

  end(): void {
    this.#ended = true;
    this.track.removeEventListener("ended", this.#onEnded);
    if ("cancelVideoFrameCallback" in this.#video) this.#video.cancelVideoFrameCallback(this.#callback);
    else cancelAnimationFrame(this.#callback);
    this.#video.srcObject = null;
  }

  readonly #onEnded = (): void => this.events.onEnd("the video track ended");

  #next(): void {
    if ("requestVideoFrameCallback" in this.#video) {
      this.#callback = this.#video.requestVideoFrameCallback(this.#onFrame);
    } else {
      this.#callback = requestAnimationFrame(this.#onFrame);
    }
  }

  readonly #onFrame = (): void => {
    if (this.#ended) return;
    this.#next();
    const { videoWidth, videoHeight } = this.#video;
    if (videoWidth === 0 || !this.#room || this.#busy || !this.#pace.isDue(performance.now(), this.encoding.fps)) return;
    this.#busy = true;
    const at = Date.now();
    const scale = Math.min(1, this.encoding.maxSide / Math.max(videoWidth, videoHeight));
    const width = Math.max(1, Math.round(videoWidth * scale));
    const height = Math.max(1, Math.round(videoHeight * scale));
    if (this.#canvas.width !== width) this.#canvas.width = width;
    if (this.#canvas.height !== height) this.#canvas.height = height;
    this.#pen?.drawImage(this.#video, 0, 0, width, height);
    this.#canvas.toBlob((blob) => void this.#encoded(blob, at, { width, height }), "image/jpeg", this.encoding.quality);
  };

  async #encoded(blob: Blob | null, at: number, size: Size): Promise<void> {
    const data = await blob?.arrayBuffer();
    this.#busy = false;
    if (data === undefined || this.#ended) return;
    this.#room = false;
    this.events.onPicture({ data: new Uint8Array(data), at, size });
  }
}

/** A captured video in the worker: the newest frame becomes a JPEG when somebody wants it and there is room. */

import type { Encoding, FromWorker } from "./messages.js";
import { Pace } from "./pace.js";

export class WorkerCapture {
  readonly #canvas = new OffscreenCanvas(1, 1);
  readonly #pen = this.#canvas.getContext("2d", { alpha: false });
  readonly #reader: ReadableStreamDefaultReader<VideoFrame>;
  readonly #pace = new Pace();
  #encoding: Encoding;
  #room = false;
  #busy = false;

  readonly capture: number;
  readonly post: (message: FromWorker, transfer?: Transferable[]) => void;

  constructor(
    capture: number,
    frames: ReadableStream<VideoFrame>,
    encoding: Encoding,
    post: (message: FromWorker, transfer?: Transferable[]) => void,
  ) {
    this.capture = capture;
    this.post = post;
    this.#encoding = encoding;
    this.#reader = frames.getReader();
    void this.#read();
  }

  /** Set how the next frames are encoded, and whether there is room for one. */
  set(encoding: Encoding, room: boolean): void {
    this.#encoding = encoding;
    this.#room = room;
  }

  end(): void {
    void this.#reader.cancel().catch(() => undefined);
  }

  async #read(): Promise<void> {
    let reason = "the video track ended";
    try {
      for (;;) {
        const { done, value: frame } = await this.#reader.read();
        if (done) break;
        const { fps } = this.#encoding;
        if (this.#room && !this.#busy && this.#pace.isDue(performance.now(), fps)) {
          this.#busy = true;
          void this.#encode(frame);
        } else {
          frame.close(); // the camera has few of them, and stops when all are held
        }
      }
    } catch (error) {
      reason = String(error);
    }
    this.post({ type: "ended", capture: this.capture, reason });
  }

  async #encode(frame: VideoFrame): Promise<void> {
    const at = Date.now();
    try {
      const { displayWidth, displayHeight } = frame;
      const scale = Math.min(1, this.#encoding.maxSide / Math.max(displayWidth, displayHeight));
      const width = Math.max(1, Math.round(displayWidth * scale));
      const height = Math.max(1, Math.round(displayHeight * scale));
      if (this.#canvas.width !== width) this.#canvas.width = width;
      if (this.#canvas.height !== height) this.#canvas.height = height;
      this.#pen?.drawImage(frame, 0, 0, width, height);
      frame.close();
      const blob = await this.#canvas.convertToBlob({ type: "image/jpeg", quality: this.#encoding.quality });
      const data = await blob.arrayBuffer();
      this.#room = false; // the page says when there is room again
      this.post({ type: "encoded", capture: this.capture, data, at, size: { width, height } }, [data]);
    } catch {
      frame.close(); // one frame less
    } finally {
      this.#busy = false;
    }
  }
}

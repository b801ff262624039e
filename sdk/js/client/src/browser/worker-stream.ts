/** The frames of one stream in the worker: decoded once, painted on all tiles that show it, acknowledged after that. */

import { decodePicture } from "./decode.js";
import { paintSize, type Size } from "./geometry.js";
import type { Painted, Wish } from "./messages.js";
import { NewestPicture, type Outcome, type Shown } from "./newest.js";

/** A canvas of the page. */
export class Tile {
  readonly #pen: OffscreenCanvasRenderingContext2D | null;

  readonly canvas: OffscreenCanvas;
  wish: Wish;

  constructor(
    canvas: OffscreenCanvas,
    wish: Wish,
  ) {
    this.canvas = canvas;
    this.wish = wish;
    this.#pen = canvas.getContext("2d", { alpha: false });
  }

  paint(picture: ImageBitmap): void {
    const { width, height } = paintSize(picture, this.wish.box, this.wish.fit);
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.#pen?.drawImage(picture, 0, 0, width, height);
  }
}

/** A frame, and a function to call when it was painted; none when it is painted again. */
interface Incoming extends Shown {
  readonly acknowledge?: (frameId: number) => void;
}

export class WorkerStream {
  readonly tiles = new Map<number, Tile>();
  /** Whether the page needs the bytes of the frames as well. */
  copy = false;
  #last: Shown | undefined;
  #count = 0;
  #replaced = 0;
  #broken = 0;
  #at = 0;
  #size: Size | undefined;
  readonly #pictures = new NewestPicture<ImageBitmap, Incoming>(
    decodePicture,
    (picture) => {
      for (const tile of this.tiles.values()) tile.paint(picture);
    },
    (outcome) => this.#done(outcome),
  );

  readonly client: number;
  readonly streamId: string;
  readonly onPainted: (isNews: boolean) => void;

  constructor(
    client: number,
    streamId: string,
    onPainted: (isNews: boolean) => void,
  ) {
    this.client = client;
    this.streamId = streamId;
    this.onPainted = onPainted;
  }

  /** The newest frame that was painted. */
  get last(): Shown | undefined {
    return this.#last;
  }

  /** Show a frame; calls its function when it was painted. */
  show(frame: Shown, acknowledge: (frameId: number) => void): void {
    this.#pictures.offer({ ...frame, acknowledge });
  }

  /** Paint the last frame again, for a tile that is new or has another size. */
  repaint(): void {
    if (this.#last !== undefined && !this.#pictures.isWaiting) this.#pictures.offer(this.#last);
  }

  /** What was painted since the last call; undefined when nothing was. */
  take(): Painted | undefined {
    if (this.#last === undefined || this.#count + this.#broken === 0) return undefined;
    const painted: Painted = {
      client: this.client,
      streamId: this.streamId,
      count: this.#count,
      replaced: this.#replaced,
      broken: this.#broken,
      frameId: this.#last.frameId,
      timestamp: this.#last.timestamp,
      at: this.#at,
      size: this.#size,
    };
    this.#count = this.#replaced = this.#broken = 0;
    return painted;
  }

  end(): void {
    this.#pictures.end();
  }

  #done({ frame, replaced, size }: Outcome<Incoming>): void {
    const { frameId, timestamp, picture, acknowledge } = frame;
    if (acknowledge === undefined) return;
    acknowledge(frameId);
    this.#replaced += replaced;
    if (size === undefined) {
      this.#broken += 1;
      this.onPainted(false);
      return;
    }
    const isNews = this.#size?.width !== size.width || this.#size.height !== size.height;
    this.#last = { frameId, timestamp, picture };
    this.#size = size;
    this.#count += 1;
    this.#at = Date.now();
    this.onPainted(isNews);
  }
}

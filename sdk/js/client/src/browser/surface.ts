/** Paints the pictures of one canvas: in the page's worker, or by the page itself where that is not possible. */

import type { Frame } from "../types.js";
import { paintSize, type Size } from "./geometry.js";
import type { FromWorker, Painted, Wish } from "./messages.js";
import { usePageWorker, type PageWorker } from "./page-worker.js";

/** The way of painting. */
export type Path = "worker" | "bitmap" | "image";

/** What was painted since the last note. */
export type PaintedNote = Omit<Painted, "client" | "streamId">;

export interface Surface {
  readonly path: Path;
  /** Whether the worker passes the frames of this client's sockets to the surface directly. */
  readonly isFed: boolean;
  /** The worker that paints; undefined: the page paints. */
  readonly worker: PageWorker | undefined;
  /** Paint one frame that the page has; resolves when it was painted. */
  show(frame: Frame): Promise<void>;
  setWish(wish: Wish): void;
  /** The newest picture as the camera sent it. */
  snapshot(): Promise<Blob | undefined>;
  /** `last`: the canvas is never used again. */
  end(last: boolean): void;
}

interface Transferred {
  readonly worker: PageWorker;
  readonly tile: number;
}

/** Canvases that the worker has: they stay there, and a later attachment finds them. */
const transferred = new WeakMap<HTMLCanvasElement, Transferred>();
const collected =
  typeof FinalizationRegistry === "undefined"
    ? undefined
    : new FinalizationRegistry<Transferred>(({ worker, tile }) => {
        worker.post({ type: "forget", tile });
        worker.release();
      });

/** Where the frames of a stream come from: a client by its number in the worker; undefined for sockets of the page. */
export interface Source {
  readonly client: number | undefined;
  readonly streamId: string;
}

let feeds = 0;

/** The best surface that this browser has for the canvas. */
export async function surfaceFor(
  canvas: HTMLCanvasElement,
  source: Source,
  wish: Wish,
  onPainted: (note: PaintedNote) => void,
): Promise<Surface> {
  const known = transferred.get(canvas);
  if (known !== undefined) return new WorkerSurface(canvas, known, undefined, source, wish, onPainted);
  if ("transferControlToOffscreen" in canvas) {
    const worker = usePageWorker();
    const abilities = await worker?.ready;
    if (worker !== undefined && abilities?.paints) {
      try {
        const offscreen = canvas.transferControlToOffscreen();
        const place = { worker, tile: worker.number() };
        transferred.set(canvas, place);
        collected?.register(canvas, place, canvas);
        return new WorkerSurface(canvas, place, offscreen, source, wish, onPainted);
      } catch {
        // somebody drew on it before: the page goes on drawing
      }
    }
    worker?.release();
  }
  return new PageSurface(canvas, wish, onPainted);
}

class WorkerSurface implements Surface {
  readonly path = "worker";
  readonly isFed: boolean;
  readonly #canvas: HTMLCanvasElement;
  readonly worker: PageWorker;
  readonly #tile: number;
  readonly #client: number;
  readonly #streamId: string;
  readonly #onPainted: (note: PaintedNote) => void;
  readonly #unlisten: () => void;
  #shown: { frameId: number; done: () => void } | undefined;
  #snapshots: ((blob: Blob | undefined) => void)[] = [];

  constructor(
    canvas: HTMLCanvasElement,
    { worker, tile }: Transferred,
    offscreen: OffscreenCanvas | undefined,
    { client, streamId }: Source,
    wish: Wish,
    onPainted: (note: PaintedNote) => void,
  ) {
    this.#canvas = canvas;
    this.worker = worker;
    this.#tile = tile;
    this.isFed = client !== undefined;
    this.#client = client ?? -(feeds += 1);
    this.#streamId = streamId;
    this.#onPainted = onPainted;
    this.#unlisten = worker.listen((message) => this.#hear(message));
    worker.post(
      { type: "tile", tile, client: this.#client, streamId, canvas: offscreen, wish },
      offscreen === undefined ? [] : [offscreen],
    );
  }

  show(frame: Frame): Promise<void> {
    const picture = frame.bytes.slice(); // others may read the same bytes
    const { frameId, timestamp } = frame;
    const source = { client: this.#client, streamId: this.#streamId };
    this.worker.post({ type: "show", ...source, frameId, timestamp, picture }, [picture.buffer]);
    return new Promise((done) => {
      this.#shown = { frameId, done };
    });
  }

  setWish(wish: Wish): void {
    this.worker.post({ type: "wish", tile: this.#tile, wish });
  }

  snapshot(): Promise<Blob | undefined> {
    this.worker.post({ type: "picture", tile: this.#tile });
    return new Promise((done) => this.#snapshots.push(done));
  }

  end(last: boolean): void {
    this.#unlisten();
    this.#shown?.done();
    for (const done of this.#snapshots.splice(0)) done(undefined);
    this.worker.post({ type: last ? "forget" : "untile", tile: this.#tile });
    if (last) {
      collected?.unregister(this.#canvas);
      this.worker.release();
    }
  }

  #hear(message: FromWorker): void {
    if (message.type === "painted") {
      for (const note of message.painted) {
        if (note.client !== this.#client || note.streamId !== this.#streamId) continue;
        this.#onPainted(note);
        if (this.#shown !== undefined && note.frameId >= this.#shown.frameId) this.#shown.done();
      }
    } else if (message.type === "shown" && message.client === this.#client) {
      if (message.frameId === this.#shown?.frameId) this.#shown.done();
    } else if (message.type === "picture" && message.tile === this.#tile) {
      this.#snapshots.shift()?.(message.blob);
    }
  }
}

interface Drawable {
  readonly source: CanvasImageSource;
  readonly width: number;
  readonly height: number;
  close(): void;
}

class PageSurface implements Surface {
  readonly path: Path = typeof createImageBitmap === "undefined" ? "image" : "bitmap";
  readonly isFed = false;
  readonly worker = undefined;
  readonly #canvas: HTMLCanvasElement;
  readonly #pen: CanvasRenderingContext2D | null;
  readonly #onPainted: (note: PaintedNote) => void;
  #wish: Wish;
  #last: Frame | undefined;
  #ended = false;

  constructor(canvas: HTMLCanvasElement, wish: Wish, onPainted: (note: PaintedNote) => void) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d");
    this.#wish = wish;
    this.#onPainted = onPainted;
  }

  async show(frame: Frame): Promise<void> {
    const size = await this.#paint(frame);
    if (this.#ended) return;
    const { frameId, timestamp } = frame;
    const broken = size === undefined ? 1 : 0;
    if (size !== undefined) this.#last = frame;
    this.#onPainted({ count: 1 - broken, replaced: 0, broken, frameId, timestamp, at: Date.now(), size });
  }

  setWish(wish: Wish): void {
    this.#wish = wish;
    if (this.#last !== undefined) void this.#paint(this.#last);
  }

  snapshot(): Promise<Blob | undefined> {
    const last = this.#last;
    return Promise.resolve(last === undefined ? undefined : new Blob([last.bytes], { type: last.mime }));
  }

  end(): void {
    this.#ended = true;
    this.#last = undefined;
  }

  async #paint(frame: Frame): Promise<Size | undefined> {
    let picture: Drawable | undefined;
    try {
      picture = await (this.path === "bitmap" ? decodeBitmap(frame) : decodeImage(frame));
      if (this.#ended) return undefined;
      const { width, height } = paintSize(picture, this.#wish.box, this.#wish.fit);
      if (this.#canvas.width !== width) this.#canvas.width = width;
      if (this.#canvas.height !== height) this.#canvas.height = height;
      this.#pen?.drawImage(picture.source, 0, 0, width, height);
      return { width: picture.width, height: picture.height };
    } catch {
      return undefined; // a broken picture: the last good one stays
    } finally {
      picture?.close();
    }
  }
}

async function decodeBitmap({ bytes, mime }: Frame): Promise<Drawable> {
  const source = await createImageBitmap(new Blob([bytes], { type: mime }));
  return { source, width: source.width, height: source.height, close: () => source.close() };
}

async function decodeImage({ bytes, mime }: Frame): Promise<Drawable> {
  const source = new Image();
  const url = URL.createObjectURL(new Blob([bytes], { type: mime }));
  try {
    await new Promise((resolve, reject) => {
      source.onload = resolve;
      source.onerror = reject;
      source.src = url;
    });
  } finally {
    URL.revokeObjectURL(url);
  }
  return { source, width: source.naturalWidth, height: source.naturalHeight, close: () => source.removeAttribute("src") };
}

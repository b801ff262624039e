/** Shows a view on a canvas: only while it is visible, scaled to its pixels, and with old pictures marked as old. */

import type { WatchoutError } from "../errors.js";
import type { Frame, ViewStatus } from "../types.js";
import type { View } from "../view.js";
import { Freshness, STALE_AFTER_MS } from "./freshness.js";
import type { Size } from "./geometry.js";
import type { Wish } from "./messages.js";
import { Screen } from "./screen.js";
import { surfaceFor, type PaintedNote, type Path, type Surface } from "./surface.js";
import { feedOf } from "./watchout.js";

/**
 * - `waiting`: no picture yet: not connected, or the camera has not sent one
 * - `live`: the picture is fresh
 * - `stale`: the picture is old: the camera, the network or the server stopped
 * - `offline`: no camera is connected
 * - `paused`: the canvas is not visible (hidden tab, scrolled away), so no frames are requested
 * - `forbidden`: the stream belongs to somebody else
 * - `closed`: the view or the attachment was closed
 */
export type TileState = "waiting" | "live" | "stale" | "offline" | "paused" | "forbidden" | "closed";

export interface TileStatus {
  readonly state: TileState;
  /** Whether the shown picture has to be marked as old. */
  readonly stale: boolean;
  /** Age of the picture, in ms; null before the first. */
  readonly ageMs: number | null;
  /** Pictures per second that were painted lately. */
  readonly fps: number;
  /** Status of the stream. */
  readonly stream: ViewStatus;
  /** Size of the picture as the camera sent it; 0 before the first. */
  readonly width: number;
  readonly height: number;
  readonly frameId: number | null;
  /** Frames that were replaced by a newer one, and frames that were no picture. */
  readonly replaced: number;
  readonly broken: number;
  /** Why the view cannot go on; undefined: it can. */
  readonly error: WatchoutError | undefined;
  /** How it is painted; undefined until that is known. */
  readonly path: Path | undefined;
}

export interface AttachOptions {
  /** A picture is stale after this many ms, and after three usual intervals of its frames. Default 3000. */
  readonly staleAfterMs?: number;
  /** `shown`: pictures are scaled to the pixels of the element. `native`: as the camera sent them, for zoom. */
  readonly detail?: Detail;
  /** Whether frames are received while the canvas is not visible. Default false. */
  readonly keepHidden?: boolean;
  /** The canvas was made for this attachment and is not used again: its memory is freed by `close`. Default false. */
  readonly ownsCanvas?: boolean;
  /** Called when the state changes, and otherwise about once a second. */
  readonly onStatus?: (status: TileStatus) => void;
}

export type Detail = "shown" | "native";

const TICK_MS = 500;
const TELL_MS = 1_000;

/** Show the view's pictures on this canvas until `close`. */
export function attach(view: View, canvas: HTMLCanvasElement, options: AttachOptions = {}): Attachment {
  return new Attachment(view, canvas, options);
}

export class Attachment {
  readonly #view: View;
  readonly #canvas: HTMLCanvasElement;
  readonly #options: AttachOptions;
  readonly #screen: Screen;
  readonly #freshness: Freshness;
  readonly #listeners = new Set<(status: TileStatus) => void>();
  readonly #unlisten: () => void;
  readonly #tick: ReturnType<typeof setInterval>;
  #detail: Detail;
  #surface: Surface | undefined;
  #frames: AsyncIterator<Frame> | undefined;
  #leaveFeed: (() => void) | undefined;
  #closed = false;
  #size: Size = { width: 0, height: 0 };
  #frameId: number | null = null;
  #replaced = 0;
  #broken = 0;
  #told: TileState | undefined;
  #toldAt = 0;

  constructor(view: View, canvas: HTMLCanvasElement, options: AttachOptions) {
    this.#view = view;
    this.#canvas = canvas;
    this.#options = options;
    this.#detail = options.detail ?? "shown";
    this.#freshness = new Freshness(options.staleAfterMs ?? STALE_AFTER_MS);
    if (options.onStatus !== undefined) this.#listeners.add(options.onStatus);
    giveSize(canvas);
    this.#screen = new Screen(
      canvas,
      () => this.#look(),
      () => this.#surface?.setWish(this.#wish),
    );
    this.#unlisten = view.on("status", (status) => {
      if (status === "offline") this.#freshness.restart();
      this.#look(); // it may be permitted now, after a refusal
      if (this.#surface === undefined) this.#tell(true);
    });
    this.#tick = setInterval(() => this.#tell(false), TICK_MS);
    void this.#begin();
  }

  /** The present status of the picture. */
  get status(): TileStatus {
    const now = Date.now();
    const stale = this.#freshness.isStale(now);
    return {
      state: this.#state(stale),
      stale,
      ageMs: this.#freshness.ageMs(now),
      fps: this.#freshness.fps(now),
      stream: this.#view.status,
      width: this.#size.width,
      height: this.#size.height,
      frameId: this.#frameId,
      replaced: this.#replaced,
      broken: this.#broken,
      error: this.#view.error,
      path: this.#surface?.path,
    };
  }

  /** `native` while the picture is enlarged. */
  get detail(): Detail {
    return this.#detail;
  }

  set detail(detail: Detail) {
    if (detail === this.#detail) return;
    this.#detail = detail;
    this.#surface?.setWish(this.#wish);
  }

  /** Call `listener` when the state changes, and about once a second. Returns a function that stops this. */
  on(event: "status", listener: (status: TileStatus) => void): () => void {
    if (event !== "status") throw new TypeError(`an attachment has the event "status", not ${JSON.stringify(event)}`);
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The newest picture that was shown, as the camera sent it; undefined before the first. */
  async snapshot(): Promise<Blob | undefined> {
    return this.#surface?.snapshot();
  }

  /** Show nothing more; the last picture stays on the canvas. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#tick);
    this.#unlisten();
    this.#screen.end();
    this.#stop();
    this.#surface?.end(this.#options.ownsCanvas ?? false);
    this.#tell(true);
    this.#listeners.clear();
  }

  get #wish(): Wish {
    return { box: this.#detail === "native" ? undefined : this.#screen.box, fit: this.#screen.fit };
  }

  get #isVisible(): boolean {
    return this.#options.keepHidden === true || this.#screen.isVisible;
  }

  #state(stale: boolean): TileState {
    const stream = this.#view.status;
    if (this.#closed || stream === "closed") return "closed";
    if (stream === "forbidden") return "forbidden";
    if (!this.#isVisible || this.#view.paused) return "paused";
    if (stream === "offline") return "offline";
    if (this.#frameId === null) return "waiting";
    return stale ? "stale" : "live";
  }

  async #begin(): Promise<void> {
    const feed = feedOf(this.#view);
    const source = { client: feed?.client, streamId: this.#view.streamId };
    const surface = await surfaceFor(this.#canvas, source, this.#wish, (note) => this.#painted(note));
    if (this.#closed) {
      surface.end(this.#options.ownsCanvas ?? false);
      return;
    }
    this.#surface = surface;
    surface.setWish(this.#wish);
    this.#look();
  }

  /** Request frames while the canvas is visible. */
  #look(): void {
    if (this.#closed || this.#surface === undefined) return;
    if (this.#isVisible && this.#frames === undefined) {
      const feed = this.#surface.isFed ? feedOf(this.#view) : undefined;
      if (this.#surface.worker !== undefined) this.#leaveFeed = feed?.addTile(this.#view.streamId, this.#surface.worker);
      void this.#show(this.#surface, (this.#frames = this.#view.frames()));
    } else if (!this.#isVisible) {
      this.#stop();
    }
    this.#tell(true);
  }

  #stop(): void {
    void this.#frames?.return?.();
    this.#frames = undefined;
    this.#leaveFeed?.();
    this.#leaveFeed = undefined;
    this.#freshness.restart();
  }

  async #show(surface: Surface, frames: AsyncIterator<Frame>): Promise<void> {
    try {
      for (;;) {
        const next = await frames.next();
        if (next.done === true || this.#frames !== frames) break;
        await surface.show(next.value);
      }
    } catch {
      // the view cannot go on: its status and error say why
    }
    if (this.#frames !== frames) return;
    this.#frames = undefined;
    this.#stop();
  }

  #painted(note: PaintedNote): void {
    if (this.#closed) return;
    this.#replaced += note.replaced;
    this.#broken += note.broken;
    if (this.#surface?.isFed) {
      const frames = note.count + note.broken + note.replaced;
      this.#view.received += frames;
      this.#view.replaced += note.replaced;
      feedOf(this.#view)?.note(this.#view.streamId, note, frames);
    }
    if (note.count > 0) {
      this.#freshness.note(note.timestamp, note.at, note.count);
      this.#frameId = note.frameId;
      const { size } = note;
      if (size !== undefined && (size.width !== this.#size.width || size.height !== this.#size.height)) {
        this.#size = size;
        this.#canvas.style.aspectRatio = `${size.width} / ${size.height}`;
      }
    }
    this.#tell(false);
  }

  /** Call the listeners: at once when the state changed or `news` is set, else once a second. */
  #tell(news: boolean): void {
    const now = performance.now();
    const status = this.status;
    if (!news && status.state === this.#told && now - this.#toldAt < TELL_MS) return;
    this.#told = status.state;
    this.#toldAt = now;
    for (const listener of [...this.#listeners]) listener(status);
  }
}

/** Give a canvas without a size of its own the width of its parent: otherwise each picture would change its size. */
function giveSize(canvas: HTMLCanvasElement): void {
  if (canvas.style.width !== "" || canvas.style.height !== "" || !canvas.isConnected) return;
  const { width, height } = getComputedStyle(canvas);
  if (width === `${canvas.width}px` && height === `${canvas.height}px`) canvas.style.width = "100%";
}

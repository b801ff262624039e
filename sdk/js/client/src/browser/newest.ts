/** Decodes one picture at a time; of the frames that arrive meanwhile only the newest waits. */

/** A frame whose bytes are a picture. */
export interface Shown {
  readonly frameId: number;
  /** Of the camera, in ms since the epoch. */
  readonly timestamp: number;
  readonly picture: Uint8Array<ArrayBuffer>;
}

/** What a frame was decoded to; it holds memory until it is closed. */
export interface Decoded {
  readonly width: number;
  readonly height: number;
  close(): void;
}

export type Decode<P extends Decoded> = (picture: Uint8Array<ArrayBuffer>) => Promise<P>;

export interface Outcome<F extends Shown = Shown> {
  readonly frame: F;
  /** Frames that were replaced by a newer one since the last outcome. */
  readonly replaced: number;
  /** Size of the picture as the camera sent it; undefined when it could not be decoded. */
  readonly size: { readonly width: number; readonly height: number } | undefined;
}

/**
 * Decodes and paints the frames of one stream.
 *
 * @param decode - makes a picture of bytes
 * @param paint - draws it; the picture is closed afterwards, whatever happens
 * @param done - called for every frame that was painted or could not be decoded: it can be acknowledged now
 */
export class NewestPicture<P extends Decoded, F extends Shown = Shown> {
  #waiting: F | undefined;
  #replaced = 0;
  #busy = false;
  #ended = false;

  readonly decode: Decode<P>;
  readonly paint: (picture: P, frame: F) => void;
  readonly done: (outcome: Outcome<F>) => void;

  constructor(
    decode: Decode<P>,
    paint: (picture: P, frame: F) => void,
    done: (outcome: Outcome<F>) => void,
  ) {
    this.decode = decode;
    this.paint = paint;
    this.done = done;
  }

  /** Whether a frame waits for its turn. */
  get isWaiting(): boolean {
    return this.#waiting !== undefined;
  }

  /** Show this frame, unless a newer one arrives before its turn. */
  offer(frame: F): void {
    if (this.#ended) return;
    if (this.#waiting !== undefined) this.#replaced += 1;
    this.#waiting = frame;
    if (!this.#busy) void this.#run();
  }

  /** Show nothing more; a picture that is being decoded is closed when it is ready. */
  end(): void {
    this.#ended = true;
    this.#waiting = undefined;
  }

  async #run(): Promise<void> {
    this.#busy = true;
    while (this.#waiting !== undefined) {
      const frame = this.#waiting;
      this.#waiting = undefined;
      const size = await this.#show(frame);
      if (this.#ended) break;
      const replaced = this.#replaced;
      this.#replaced = 0;
      this.done({ frame, replaced, size });
    }
    this.#busy = false;
  }

  async #show(frame: F): Promise<Outcome["size"]> {
    let picture: P | undefined;
    try {
      picture = await this.decode(frame.picture);
      if (this.#ended) return undefined;
      this.paint(picture, frame);
      return { width: picture.width, height: picture.height };
    } catch {
      return undefined; // a broken picture: the last good one stays
    } finally {
      picture?.close();
    }
  }
}

/** Whether the page needs copies of the frames that the worker paints: when the app iterates over them. */

import type { PageWorker } from "./page-worker.js";

interface Viewing {
  readonly streamId: string;
}

/** The streams of one client. */
export class Copies {
  readonly #readers = new Map<string, Map<object, number>>();
  readonly #tiles = new Map<string, number>();
  readonly #copied = new Set<string>();
  readonly #lastNote = new Map<string, object>();
  #worker: PageWorker | undefined;

  /**
   * @param client - Number of the client in the worker.
   * @param onShown - Called once for the frames of a stream that the worker painted, with their number.
   */
  constructor(
    readonly client: number,
    readonly onShown: (streamId: string, frames: number) => void,
  ) {}

  /** Set how many loops iterate over the view's frames; each tile that shows it is one. */
  setReaders(view: Viewing, count: number): void {
    let ofStream = this.#readers.get(view.streamId);
    if (ofStream === undefined) this.#readers.set(view.streamId, (ofStream = new Map()));
    if (count > 0) ofStream.set(view, count);
    else ofStream.delete(view);
    if (ofStream.size === 0) this.#readers.delete(view.streamId);
    this.#look(view.streamId);
  }

  /** Add a tile that the worker paints and that iterates over the frames; call the returned function when it ends. */
  addTile(streamId: string, worker: PageWorker): () => void {
    this.#worker = worker;
    const change = (by: number): void => {
      const count = (this.#tiles.get(streamId) ?? 0) + by;
      if (count > 0) {
        this.#tiles.set(streamId, count);
      } else {
        this.#tiles.delete(streamId);
        this.#lastNote.delete(streamId);
      }
      this.#look(streamId);
    };
    change(1);
    return () => change(-1);
  }

  /** Handle a note that a tile received: the worker sends one about so many frames to all tiles of a stream. */
  note(streamId: string, note: object, frames: number): void {
    if (this.#lastNote.get(streamId) === note) return;
    this.#lastNote.set(streamId, note);
    this.onShown(streamId, frames);
  }

  #look(streamId: string): void {
    const tiles = this.#tiles.get(streamId) ?? 0;
    let readers = 0;
    for (const count of this.#readers.get(streamId)?.values() ?? []) readers += count;
    const copy = tiles > 0 && readers > tiles;
    if (copy === this.#copied.has(streamId)) return;
    if (copy) this.#copied.add(streamId);
    else this.#copied.delete(streamId);
    this.#worker?.post({ type: "copy", client: this.client, streamId, copy });
  }
}

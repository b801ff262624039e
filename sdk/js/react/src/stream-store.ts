"use client";

import type { TileStatus, View, ViewStatus, Watchout, WatchoutError } from "@watchout/client/browser";

/** The state of one stream. Updated when a state changes and about once a second, not per frame. */
export interface StreamState {
  /** Status of the stream; `waiting` before the server sent it, `forbidden` when the subscription was refused. */
  readonly status: ViewStatus;
  /** Age in ms of the picture that a `LiveView` shows; null while none shows one. */
  readonly ageMs: number | null;
  /** Pictures per second that are shown. */
  readonly fps: number;
  /** Whether the picture is old. */
  readonly stale: boolean;
  /** Size of the pictures; 0 before the first. */
  readonly width: number;
  readonly height: number;
  /** Why the server refused the stream. */
  readonly error: WatchoutError | undefined;
}

export const UNKNOWN: StreamState = {
  status: "waiting",
  ageMs: null,
  fps: 0,
  stale: false,
  width: 0,
  height: 0,
  error: undefined,
};

/** The state of one stream of one client, for all components that ask for it. */
export class StreamStore {
  readonly #client: Watchout;
  readonly #id: string;
  readonly #listeners = new Set<() => void>();
  readonly #tiles = new Map<object, TileStatus>();
  #view: View | undefined;
  #error: WatchoutError | undefined;
  #state = UNKNOWN;

  constructor(client: Watchout, id: string) {
    this.#client = client;
    this.#id = id;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    if (this.#view === undefined) {
      this.#error = undefined;
      this.#view = this.#client.view(this.#id);
      this.#view.on("status", () => this.#update());
      this.#view.on("error", (error) => {
        this.#error = error;
        this.#update();
      });
      this.#update();
    }
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) {
        this.#view?.close();
        this.#view = undefined;
      }
    };
  };

  readonly snapshot = (): StreamState => this.#state;

  /** Set what a `LiveView` shows; undefined: it was unmounted. */
  show(tile: object, status: TileStatus | undefined): void {
    if (status === undefined) this.#tiles.delete(tile);
    else this.#tiles.set(tile, status);
    this.#update();
  }

  #update(): void {
    let best: TileStatus | undefined;
    for (const tile of this.#tiles.values()) {
      if (tile.state !== "paused" && tile.ageMs !== null && tile.ageMs < (best?.ageMs ?? Infinity)) best = tile;
    }
    const state: StreamState = {
      status: this.#view?.status ?? best?.stream ?? "waiting",
      ageMs: best?.ageMs ?? null,
      fps: best?.fps ?? 0,
      stale: best?.stale ?? false,
      width: best?.width ?? 0,
      height: best?.height ?? 0,
      error: this.#error,
    };
    const keys = Object.keys(state) as (keyof StreamState)[];
    if (keys.every((key) => state[key] === this.#state[key])) return;
    this.#state = state;
    for (const listener of [...this.#listeners]) listener();
  }
}

const stores = new WeakMap<Watchout, Map<string, StreamStore>>();

export function storeOf(client: Watchout, id: string): StreamStore {
  let ofClient = stores.get(client);
  if (ofClient === undefined) stores.set(client, (ofClient = new Map()));
  let store = ofClient.get(id);
  if (store === undefined) ofClient.set(id, (store = new StreamStore(client, id)));
  return store;
}

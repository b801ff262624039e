/** The client for pages: its sockets are in the page's worker, so that a busy page delays no picture. */

import type { SocketConstructor, ViewOptions, WatchoutOptions } from "../types.js";
import type { View } from "../view.js";
import { Watchout as Core } from "../watchout.js";
import { Copies } from "./copies.js";
import { socketsOf } from "./worker-socket.js";

const copiesOf = new WeakMap<object, Copies>();
let made = 0;

/** The client of a view in the worker; undefined when its sockets are the page's own. */
export function feedOf(view: View): Copies | undefined {
  return copiesOf.get(view);
}

/** As `Watchout` of `@watchout/client`; `WebSocket` given in the options is used instead of the worker's. */
export class Watchout extends Core {
  readonly #copies: Copies | undefined;

  constructor(url: string | URL, options: WatchoutOptions = {}) {
    const client = options.WebSocket === undefined && typeof Worker !== "undefined" ? (made += 1) : undefined;
    super(url, client === undefined ? options : { ...options, WebSocket: socketsOf(client) as SocketConstructor });
    this.#copies = client === undefined ? undefined : new Copies(client, (streamId, count) => {
      this._subscriptions.onShown(streamId, count, this._environment.clock.now());
    });
  }

  override view(streamId: string, options: ViewOptions = {}): View {
    const view = super.view(streamId, options);
    const copies = this.#copies;
    if (copies !== undefined) {
      copiesOf.set(view, copies);
      view.onReaders = (count) => copies.setReaders(view, count);
    }
    return view;
  }
}

/** Pictures of alerts as `blob:` URLs, each fetched once; past a bound the oldest are revoked. */

import type { Api } from "./api";
import { keyOf, type Alert } from "./pure/alerts";

/** Most pictures that are kept. */
const MOST = 60;

export class AlertPictures {
  readonly #kept = new Map<string, Promise<string | null>>();

  constructor(readonly api: Api) {}

  /** The URL of an alert's picture; null: none is kept. A failed request is made again the next time. */
  of(alert: Alert): Promise<string | null> {
    const key = keyOf(alert);
    let found = this.#kept.get(key);
    if (found === undefined) {
      found = this.api.alertPicture(alert).then((blob) => (blob === null ? null : URL.createObjectURL(blob)));
      found.catch(() => this.#kept.delete(key));
      // The picture may come a moment after its alert.
      void found.then((url) => url === null && setTimeout(() => this.#kept.delete(key), 3000)).catch(() => undefined);
    }
    this.#kept.delete(key);
    this.#kept.set(key, found);
    for (const [oldest, url] of this.#kept) {
      if (this.#kept.size <= MOST) break;
      this.#kept.delete(oldest);
      void url.then((text) => text && URL.revokeObjectURL(text)).catch(() => undefined);
    }
    return found;
  }

  clear(): void {
    for (const url of this.#kept.values()) void url.then((text) => text && URL.revokeObjectURL(text)).catch(() => undefined);
    this.#kept.clear();
  }
}

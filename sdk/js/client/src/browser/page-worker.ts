/** The page's one worker: started when it is first needed, ended when nobody needs it any more. */

import type { Abilities, FromWorker, ToWorker } from "./messages.js";

type Listener = (message: FromWorker) => void;

/** How long a worker is kept that nobody uses: components come and go. */
const KEEP_MS = 5_000;
/** A worker that says nothing for this long does not come: a policy of the page, or a bundler that lost its file. */
const READY_MS = 10_000;

let workerUrl: string | URL | undefined;
let current: PageWorker | undefined;

/**
 * Where the worker's script is, if not beside this module.
 *
 * Needed only where a bundler does not know `new URL("./worker.js", import.meta.url)`: put the file
 * `@watchout/client/browser/worker.js` where the page may load it (same origin, `worker-src 'self'`) and call this
 * before the first `Watchout` is made.
 */
export function setWorkerUrl(url: string | URL): void {
  workerUrl = url;
}

/** The page's worker, with one more user, who calls `release` once; undefined where the browser has none. */
export function usePageWorker(): PageWorker | undefined {
  if (typeof Worker === "undefined") return undefined;
  if (current?.hasFailed) return undefined; // it will not come later either
  current ??= new PageWorker();
  current.users += 1;
  return current;
}

export class PageWorker {
  users = 0;
  hasFailed = false;
  /** What it can do, or undefined when it cannot be started. */
  readonly ready: Promise<Abilities | undefined>;
  readonly #listeners = new Set<Listener>();
  #worker: Worker | undefined;
  #ending: ReturnType<typeof setTimeout> | undefined;
  #nextNumber = 1;

  constructor() {
    this.ready = this.#start();
  }

  /** A number that nothing else in this worker has. */
  number(): number {
    return this.#nextNumber++;
  }

  /** Hear everything that the worker says, until the function that is returned is called. */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  post(message: ToWorker, transfer: Transferable[] = []): void {
    this.#worker?.postMessage(message, transfer);
  }

  /** One user less. */
  release(): void {
    this.users -= 1;
    if (this.users > 0) return;
    clearTimeout(this.#ending);
    this.#ending = setTimeout(() => {
      if (this.users > 0) return;
      this.#worker?.terminate();
      this.#worker = undefined;
      if (current === this) current = undefined;
    }, KEEP_MS);
  }

  #start(): Promise<Abilities | undefined> {
    return new Promise((resolve) => {
      const fail = (): void => {
        clearTimeout(timer);
        this.hasFailed = true;
        this.#worker?.terminate();
        this.#worker = undefined;
        resolve(undefined);
      };
      const timer = setTimeout(fail, READY_MS);
      try {
        // Written out, so that bundlers see it and make a file of the worker.
        this.#worker =
          workerUrl === undefined
            ? new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "watchout" })
            : new Worker(workerUrl, { type: "module", name: "watchout" });
      } catch {
        fail();
        return;
      }
      this.#worker.onerror = (event) => {
        event.preventDefault();
        fail();
      };
      this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
        if (data.type === "ready") {
          clearTimeout(timer);
          if (this.#worker !== undefined) this.#worker.onerror = null;
          resolve(data.abilities);
        } else {
          for (const listener of [...this.#listeners]) listener(data);
        }
      };
    });
  }
}

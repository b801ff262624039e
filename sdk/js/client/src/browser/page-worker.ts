/** The page's one worker: started at its first use, ended when it has no user. */

import type { Abilities, FromWorker, ToWorker } from "./messages.js";

type Listener = (message: FromWorker) => void;

/** How long a worker without users is kept, in ms: components are unmounted and mounted again. */
const KEEP_MS = 5_000;
/** A worker that sends nothing for this long did not start: a policy of the page forbids it, or its file is missing. */
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

/** Returns the page's worker for one more user, who calls `release` once; undefined where workers cannot be used. */
export function usePageWorker(): PageWorker | undefined {
  if (typeof Worker === "undefined") return undefined;
  if (current?.hasFailed) return undefined; // it will not start later either
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

  /** Receive all messages of the worker, until the returned function is called. */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  post(message: ToWorker, transfer: Transferable[] = []): void {
    this.#worker?.postMessage(message, transfer);
  }

  /** Release the worker. */
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

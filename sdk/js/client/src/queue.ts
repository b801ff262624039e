/** What waits for a `for await` loop. */

/** An async iterator over values that arrive, in order or only the newest. */
export class Queue<T> implements AsyncIterableIterator<T> {
  private readonly values: T[] = [];
  private readonly waiters: { resolve(result: IteratorResult<T>): void; reject(error: unknown): void }[] = [];
  private ended = false;
  private error: unknown;

  /**
   * @param most - How many values wait; the oldest gives way, and `onDrop` is told.
   * @param onNext - Called when the reader asks for the next value: it is done with the one before.
   * @param onTake - Called when the reader gets a value.
   * @param onEnd - Called once, when the reader stops or the queue ends.
   */
  constructor(
    private readonly most: number,
    private readonly hooks: { onNext?(): void; onTake?(value: T): void; onDrop?(dropped: T, next: T | undefined): void; onEnd?(): void } = {},
  ) {}

  push(value: T): void {
    if (this.ended) return;
    const waiter = this.waiters.shift();
    if (waiter !== undefined) {
      this.hooks.onTake?.(value);
      return waiter.resolve({ done: false, value });
    }
    this.values.push(value);
    if (this.values.length > this.most) this.hooks.onDrop?.(this.values.shift() as T, this.values[0]);
  }

  /** No more values come; those that wait are still read. `error` is thrown after them. */
  end(error?: unknown): void {
    if (this.ended) return;
    this.ended = true;
    this.error = error;
    for (const waiter of this.waiters.splice(0)) this.finish(waiter.resolve, waiter.reject);
    this.hooks.onEnd?.();
  }

  next(): Promise<IteratorResult<T>> {
    this.hooks.onNext?.();
    const value = this.values.shift();
    if (value !== undefined) {
      this.hooks.onTake?.(value);
      return Promise.resolve({ done: false, value });
    }
    return new Promise((resolve, reject) => {
      if (this.ended) this.finish(resolve, reject);
      else this.waiters.push({ resolve, reject });
    });
  }

  return(): Promise<IteratorResult<T>> {
    this.values.length = 0;
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  private finish(resolve: (result: IteratorResult<T>) => void, reject: (error: unknown) => void): void {
    const { error } = this;
    this.error = undefined;
    if (error === undefined) resolve({ done: true, value: undefined });
    else reject(error);
  }
}

/** The queue of values that wait for a `for await` loop. */

/** An async iterator over values that arrive, in order or only the newest. */
export class Queue<T> implements AsyncIterableIterator<T> {
  private readonly _values: T[] = [];
  private readonly _waiters: { resolve(result: IteratorResult<T>): void; reject(error: unknown): void }[] = [];
  private _ended = false;
  private _error: unknown;

  /**
   * @param most - Most values that wait; past it the oldest is dropped, and `onDrop` called.
   * @param onNext - Called when the reader asks for the next value, and so has used the last one.
   * @param onTake - Called when the reader gets a value.
   * @param onEnd - Called once, when the reader stops or the queue ends.
   */
  constructor(
    private readonly _most: number,
    private readonly _hooks: { onNext?(): void; onTake?(value: T): void; onDrop?(dropped: T, next: T | undefined): void; onEnd?(): void } = {},
  ) {}

  push(value: T): void {
    if (this._ended) return;
    const waiter = this._waiters.shift();
    if (waiter !== undefined) {
      this._hooks.onTake?.(value);
      return waiter.resolve({ done: false, value });
    }
    this._values.push(value);
    if (this._values.length > this._most) this._hooks.onDrop?.(this._values.shift() as T, this._values[0]);
  }

  /** End the queue; values that wait are still read. `error` is thrown after them. */
  end(error?: unknown): void {
    if (this._ended) return;
    this._ended = true;
    this._error = error;
    for (const waiter of this._waiters.splice(0)) this._finish(waiter.resolve, waiter.reject);
    this._hooks.onEnd?.();
  }

  next(): Promise<IteratorResult<T>> {
    this._hooks.onNext?.();
    const value = this._values.shift();
    if (value !== undefined) {
      this._hooks.onTake?.(value);
      return Promise.resolve({ done: false, value });
    }
    return new Promise((resolve, reject) => {
      if (this._ended) this._finish(resolve, reject);
      else this._waiters.push({ resolve, reject });
    });
  }

  return(): Promise<IteratorResult<T>> {
    this._values.length = 0;
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  private _finish(resolve: (result: IteratorResult<T>) => void, reject: (error: unknown) => void): void {
    const { _error: error } = this;
    this._error = undefined;
    if (error === undefined) resolve({ done: true, value: undefined });
    else reject(error);
  }
}

/** A clock that advances only when a test says so. */

import type { Clock } from "../types.js";

export class FakeClock implements Clock {
  private _time = 0;
  private _count = 0;
  private readonly _timers = new Map<number, { readonly at: number; readonly run: () => void }>();

  /** @param startMs - The wall clock at the start, ms since the epoch. */
  constructor(private readonly _startMs = 1_750_000_000_000) {}

  now(): number {
    return this._time;
  }

  wall(): number {
    return this._startMs + this._time;
  }

  timer(run: () => void, ms: number): () => void {
    const id = ++this._count;
    this._timers.set(id, { at: this._time + Math.max(0, ms), run });
    return () => this._timers.delete(id);
  }

  /** Timers that have not run yet. */
  get pending(): number {
    return this._timers.size;
  }

  /** Advance by `ms` and run the timers that are due, each at its time; promises are settled between them. */
  async advance(ms: number): Promise<void> {
    const until = this._time + ms;
    await settle();
    for (;;) {
      const due = [...this._timers].filter(([, each]) => each.at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) break;
      this._timers.delete(due[0]);
      this._time = Math.max(this._time, due[1].at);
      due[1].run();
      await settle();
    }
    this._time = until;
    await settle();
  }

  /** Advance by `ms` at once, as when the machine slept: timers that are due run late. */
  async jump(ms: number): Promise<void> {
    this._time += ms;
    await this.advance(0);
  }
}

/** Settle all promises. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

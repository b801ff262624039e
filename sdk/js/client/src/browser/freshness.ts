/** The age of a stream's picture, computed from the timestamps of its frames. */

/** The clocks of camera and viewer count as equal when the fastest frame seemed to take a time between these, in ms. */
const EARLIEST_MS = -250;
const LATEST_MS = 2_000;
/** Drift of two clocks that is allowed for: 1 ms per second. */
const DRIFT = 0.001;
const FPS_WINDOW_MS = 3_000;
/** A picture is stale when it is older than this, and than `INTERVALS` of the usual time between two frames. */
export const STALE_AFTER_MS = 3_000;
const INTERVALS = 3;
const LONGEST_INTERVAL_MS = 60_000;

interface Note {
  at: number;
  count: number;
}

/**
 * Records each frame that is shown, and computes the age of the newest.
 *
 * The age is computed from the frame's own timestamp. If the camera's clock is wrong, it is how much later than the
 * fastest frame the newest one is. The first frame after a subscription may be old, so it says nothing about the clocks.
 */
export class Freshness {
  #newest: { timestamp: number; at: number } | undefined;
  #frames = 0;
  /** The smallest difference of arrival and timestamp so far, and when it was taken. */
  #least: { ms: number; at: number } | undefined;
  #notes: Note[] = [];
  #interval = 0;

  readonly staleAfterMs: number;

  constructor(
    staleAfterMs: number = STALE_AFTER_MS,
  ) {
    this.staleAfterMs = staleAfterMs;
  }

  /** `count` frames were shown, the newest of them with this timestamp, at this time; all in ms since the epoch. */
  note(timestamp: number, at: number, count = 1): void {
    const before = this.#newest;
    this.#frames += count;
    if (this.#frames > 1) {
      const taken = at - timestamp;
      const least = this.#leastAt(at);
      if (least === undefined || taken < least) this.#least = { ms: taken, at };
    }
    if (before !== undefined && this.#frames > count && at > before.at) {
      const interval = Math.min((at - before.at) / count, LONGEST_INTERVAL_MS);
      this.#interval = this.#interval === 0 ? interval : this.#interval + (interval - this.#interval) / 4;
    }
    this.#newest = { timestamp, at };
    this.#notes.push({ at, count });
    this.#forget(at);
  }

  /** Forget clocks and rates, because the camera disconnected or the view was paused. */
  restart(): void {
    this.#least = undefined;
    this.#notes = [];
    this.#interval = 0;
    this.#frames = 0;
  }

  /** Age of the picture that is shown, in ms; null before the first. */
  ageMs(now: number): number | null {
    const newest = this.#newest;
    if (newest === undefined) return null;
    const least = this.#frames > 1 ? this.#leastAt(now) : undefined;
    const skew = least !== undefined && (least < EARLIEST_MS || least > LATEST_MS) ? least : 0;
    return Math.max(0, now - newest.timestamp - skew, now - newest.at);
  }

  /** Frames per second that were shown lately. */
  fps(now: number): number {
    this.#forget(now);
    const first = this.#notes[0];
    if (first === undefined) return 0;
    const count = this.#notes.reduce((sum, note) => sum + note.count, -first.count); // those after the first
    const spanMs = Math.max(now - first.at, 1_000);
    return Math.round((count / spanMs) * 10_000) / 10;
  }

  /** Whether the picture has to be marked as old. */
  isStale(now: number): boolean {
    const age = this.ageMs(now);
    return age === null || age > Math.max(this.staleAfterMs, INTERVALS * this.#interval);
  }

  #leastAt(now: number): number | undefined {
    return this.#least === undefined ? undefined : this.#least.ms + (now - this.#least.at) * DRIFT;
  }

  #forget(now: number): void {
    while (this.#notes.length > 0 && (this.#notes[0] as Note).at < now - FPS_WINDOW_MS) this.#notes.shift();
  }
}

/** Decides how large pictures may be, so that the uplink carries each in a fraction of a second. */

/** Factors for side and quality, by step; each step saves about a third of the bytes. */
const STEPS: readonly (readonly [side: number, quality: number])[] = [
  [1, 1],
  [1, 0.8],
  [0.8, 0.75],
  [0.65, 0.7],
  [0.5, 0.7],
  [0.4, 0.65],
  [0.32, 0.55],
  [0.25, 0.5],
  [0.2, 0.4],
  [0.16, 0.3],
];
/** The step at the start: small pictures, from whose time the next size is decided. */
const FIRST_STEP = 5;
/**
 * A picture was fast when it was acknowledged within the first time, and slow after the second, in ms. Where even the
 * fastest took long the round trip is long, and smaller pictures would not help: both times then grow, up to their limits.
 */
const QUICK_MS = [200, 400] as const;
const SLOW_MS = [400, 600] as const;
/** Fast pictures in a row that allow one step up. */
const QUICK_ONES = 2;
/** No step up for this long after a step down; twice as long each time, as far as the last. */
const HOLD_MS = 4_000;
const LONGEST_HOLD_MS = 60_000;
/** What one step does to the bytes of a picture. */
const STEP_RATIO = 0.62;
const MOST_UNDER_WAY = 64;

interface Sent {
  readonly timestamp: number;
  readonly at: number;
  readonly step: number;
}

/** Decides from each picture that is sent and acknowledged how the next is to be encoded. */
export class Uplink {
  #step = FIRST_STEP;
  #sent: Sent[] = [];
  #quick = 0;
  #least = Number.POSITIVE_INFINITY;
  #holdMs = HOLD_MS;
  #holdUntil = 0;

  readonly maxSide: number;
  readonly quality: number;

  /**
   * @param maxSide - longest side that a picture may have, in pixels
   * @param quality - best quality of the encoder, 0 to 1
   */
  constructor(
    maxSide: number,
    quality: number,
  ) {
    this.maxSide = maxSide;
    this.quality = quality;
  }

  /** The present step; 0: the full size and quality. */
  get step(): number {
    return this.#step;
  }

  /** How the next picture is to be encoded. */
  get encoding(): { readonly maxSide: number; readonly quality: number } {
    const [side, quality] = STEPS[this.#step] as readonly [number, number];
    return { maxSide: Math.max(16, Math.round(this.maxSide * side)), quality: this.quality * quality };
  }

  /** A picture with this timestamp was sent now (ms). */
  sent(timestamp: number, now: number): void {
    this.#sent.push({ timestamp, at: now, step: this.#step });
    if (this.#sent.length > MOST_UNDER_WAY) this.#sent.shift();
  }

  /** Record that all pictures up to this timestamp have arrived; the time of the newest measures the uplink. */
  acknowledged(timestamp: number, now: number): void {
    let newest: Sent | undefined;
    while (this.#sent.length > 0 && (this.#sent[0] as Sent).timestamp <= timestamp) newest = this.#sent.shift();
    if (newest !== undefined) this.#took(now - newest.at, newest.step, now);
  }

  /** Record a new connection: nothing is under way, and the uplink may be another one. */
  restart(): void {
    this.#sent = [];
    this.#quick = 0;
    this.#least = Number.POSITIVE_INFINITY;
    this.#step = Math.max(this.#step, FIRST_STEP);
    this.#holdUntil = 0;
    this.#holdMs = HOLD_MS;
  }

  #took(ms: number, step: number, now: number): void {
    this.#least = Math.min(this.#least, ms);
    const slow = within(SLOW_MS, 1.5 * this.#least);
    if (ms > slow) {
      this.#quick = 0;
      if (step < this.#step) return; // it was larger than those that are sent now
      const steps = Math.max(1, Math.round(Math.log(slow / ms) / Math.log(STEP_RATIO)));
      this.#step = Math.min(STEPS.length - 1, this.#step + steps);
      this.#holdUntil = now + this.#holdMs;
      this.#holdMs = Math.min(this.#holdMs * 2, LONGEST_HOLD_MS);
    } else if (ms <= within(QUICK_MS, 1.3 * this.#least) && step === this.#step) {
      this.#quick += 1;
      if (this.#quick >= QUICK_ONES && this.#step > 0 && now >= this.#holdUntil) {
        this.#quick = 0;
        this.#step -= 1;
      }
    } else {
      this.#quick = 0;
    }
  }
}

function within([least, most]: readonly [number, number], value: number): number {
  return Math.min(most, Math.max(least, value));
}

/** Decides which frames of a video to take for a wanted rate, whatever the rate of the camera is. */

/** A frame that comes this little before its time is taken: cameras are not exact. */
const EARLY_MS = 8;

export class Pace {
  #nextMs = 0;

  /** Whether a frame that comes now is to be taken, at `fps` frames a second; `nowMs` never falls. */
  isDue(nowMs: number, fps: number): boolean {
    if (!(fps > 0)) return false;
    if (nowMs < this.#nextMs - EARLY_MS) {
      if (this.#nextMs - nowMs <= 1_000 / fps) return false; // else the rate rose meanwhile
    }
    const interval = 1_000 / fps;
    this.#nextMs = nowMs - this.#nextMs < interval ? this.#nextMs + interval : nowMs + interval;
    return true;
  }
}

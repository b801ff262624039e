/** Rates of events, over the last seconds. Pure. */

const OVER_MS = 3000;
const MOST = 256;

export class Rate {
  private readonly _times: number[] = [];

  count(now: number): void {
    this._times.push(now);
    if (this._times.length > MOST) this._times.shift();
  }

  /** Events per second. */
  at(now: number): number {
    while (this._times.length > 0 && now - (this._times[0] as number) > OVER_MS) this._times.shift();
    const first = this._times[0];
    if (first === undefined || this._times.length < 2) return 0;
    return ((this._times.length - 1) * 1000) / Math.max(now - first, 1);
  }
}

/** Lets at most `perSecond` events pass, evenly. */
export class Pace {
  private _next = -Infinity;

  /** Milliseconds until the next event may pass. It may come a tenth of the interval early: frames do not arrive evenly. */
  wait(perSecond: number | undefined, now: number): number {
    return perSecond === undefined ? 0 : Math.max(0, this._next - 100 / perSecond - now);
  }

  /** Whether an event at `now` may pass; then it counts. */
  take(perSecond: number | undefined, now: number): boolean {
    if (perSecond === undefined) return true;
    if (this.wait(perSecond, now) > 0) return false;
    const every = 1000 / perSecond;
    const planned = this._next + every;
    this._next = planned > now + every / 2 ? planned : now + every;
    return true;
  }
}

/** Computes how many frames may be under way to a viewer from round trip and rate. Pure. */

const LEAST = 2;
const MOST = 6;

/**
 * Return the next window.
 *
 * @param window - The present one.
 * @param fps - Frames per second that arrive, or that are wanted.
 * @param roundTrips - The last round trips in ms, newest last.
 */
export function nextWindow(window: number, fps: number, roundTrips: readonly number[]): number {
  const last = roundTrips.at(-1);
  if (last === undefined) return window;
  const least = Math.min(...roundTrips);
  // A round trip far above the shortest means that frames queue on the way, which fewer frames reduce.
  if (last > 2.5 * least + 50) return Math.max(LEAST, window - 1);
  const needed = Math.min(MOST, Math.max(LEAST, 1 + Math.ceil((fps * least) / 1000)));
  return needed > window && last > 1.5 * least + 20 ? window : needed;
}

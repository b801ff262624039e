/** What `/latency` and `/streams/{id}/latency` say (docs/latency.md). Pure. */

export interface Latency {
  /** In their order; `name` is for people, `whole` is a way from glass to somebody. */
  hops: { hop: string; name: string; count: number; p50Ms: number | null; p99Ms: number | null }[];
  /** Shares of the error budget that were used in five minutes and in an hour; null: there was nothing. */
  objectives: { hop: string; name: string; objectiveMs: number; burn5m: number | null; burn1h: number | null }[];
  /** `says`: what is known of the camera's clock, as a sentence. */
  clock: { says: string } | null;
}

/** A duration with as many digits as say something. */
export function duration(ms: number | null): string {
  if (ms === null) return "–";
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms.toFixed(ms >= 100 ? 0 : ms >= 1 ? 1 : 2)} ms`;
}

/** Texts for the states of tiles, connection and capture. Pure. */

import { span } from "./format";

/** How a tile looks: `stale` and `gone` make its picture grey. */
export type Look = "live" | "waiting" | "stale" | "idle" | "gone" | "forbidden" | "paused";

export interface TileFacts {
  state: "waiting" | "live" | "stale" | "offline" | "paused" | "forbidden" | "closed";
  stale: boolean;
  ageMs: number | null;
  /** Status of the stream. */
  stream: string;
}

export const NO_TILE: TileFacts = { state: "waiting", stale: true, ageMs: null, stream: "waiting" };

/** Returns the state of a tile. Unless `connected`, no picture counts as fresh, however new it is. */
export function lookOf({ state, stale, ageMs, stream }: TileFacts, connected: boolean): Look {
  if (state === "forbidden") return "forbidden";
  if (stream === "offline" || state === "offline") return "gone";
  if (state === "paused") return "paused";
  if (stream === "online" && stale) return "idle";
  if (ageMs === null || state === "waiting") return "waiting";
  return stale || !connected ? "stale" : "live";
}

export function sentence(look: Look, ageMs: number | null): string {
  const age = ageMs === null ? "" : ` for ${span(ageMs)}`;
  switch (look) {
    case "live":
      return "Live";
    case "waiting":
      return "Waiting for the first picture";
    case "stale":
      return `No new picture${age}`;
    case "idle":
      return `The camera sends no pictures${age}`;
    case "gone":
      return "The camera is gone";
    case "forbidden":
      return "Not yours to view";
    case "paused":
      return "Paused";
  }
}

export interface ConnectionFacts {
  state: "idle" | "connecting" | "online" | "waiting" | "closed";
  code?: string | undefined;
  /** When the next attempt is, ms since the epoch. */
  retryAt?: number | undefined;
}

/** Text of the bar for a connection that is not established; null: it is, or none is needed. */
export function connectionSentence({ state, code, retryAt }: ConnectionFacts, now: number): string | null {
  if (state === "online" || state === "idle" || state === "closed") return null;
  if (state === "connecting") return code === undefined ? "Connecting …" : "Connecting again …";
  const s = Math.max(0, Math.ceil(((retryAt ?? now) - now) / 1000));
  const when = s ? `connecting again in ${s} s` : "connecting again now";
  switch (code) {
    case "RATE_LIMITED":
      return `Too much was asked for at once; ${when}.`;
    case "TOO_MANY_CONNECTIONS":
      return `Too many connections are open; ${when}.`;
    case "AUTH_UNAVAILABLE":
      return `Sessions cannot be checked now; ${when}.`;
    case "ROUTING_ERROR":
      return `The router is away; ${when}.`;
    case "NETWORK_SILENT":
      return `Nothing comes from the gateway any more; ${when}.`;
    default:
      return `The connection was lost; ${when}.`;
  }
}

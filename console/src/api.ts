/** The HTTP paths of the gateway, with the credential of the session. */

import { readAlert, type Alert } from "./pure/alerts";
import type { Latency } from "./pure/latency";
export type StreamStatus = "streaming" | "online" | "offline" | "unknown";
import type { HealthReply } from "./pure/metrics";

/** The page's address without fragment: the paths are below it, also behind a proxy with a prefix. */
export const BASE = new URL(".", location.href.split("#")[0]).href;

export type Fault = "signed-out" | "forbidden" | "not-found" | "limited" | "router" | "store" | "network" | "other";

export class ApiError extends Error {
  constructor(
    readonly fault: Fault,
    message: string,
    readonly code: string = "",
    readonly retryS: number = 0,
  ) {
    super(message);
  }
}

export interface StreamRow {
  id: string;
  userId: string;
  status: StreamStatus;
  fps: number;
  viewers: number;
  startedAt: number;
  lastFrameAt: number | null;
  info: Record<string, unknown>;
}

export interface Share {
  id: string;
  token: string | null;
  createdAt: number | null;
  endsAt: number | null;
  alerts: boolean;
}

type Body = Record<string, unknown>;

function faultOf(status: number, code: string): Fault {
  if (status === 401) return "signed-out";
  if (status === 403) return "forbidden";
  if (status === 404) return "not-found";
  if (status === 429) return "limited";
  if (status === 503 && code === "ROUTING_ERROR") return "router";
  if (status === 503 && code === "AUTH_UNAVAILABLE") return "store";
  return status >= 500 ? "network" : "other";
}

export class Api {
  /** `token`: null when the browser's cookie signs in. */
  constructor(readonly token: string | null) {}

  async #fetch(path: string, init: RequestInit = {}, token = this.token): Promise<Response> {
    const headers = new Headers(init.headers);
    if (token !== null) headers.set("Authorization", `Bearer ${token}`);
    let response: Response;
    try {
      response = await fetch(BASE + path, { ...init, headers, credentials: token === null ? "same-origin" : "omit" });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ApiError("network", "The gateway does not answer.");
    }
    if (response.ok) return response;
    const body: unknown = await response.json().catch(() => null);
    const error = (body as { error?: { code?: string; message?: string } } | null)?.error;
    const retryS = Number(response.headers.get("Retry-After")) || 0;
    throw new ApiError(
      faultOf(response.status, error?.code ?? ""),
      error?.message ?? `The gateway answered with ${response.status}.`,
      error?.code ?? "",
      retryS,
    );
  }

  async #json(path: string, init?: RequestInit): Promise<Body> {
    return (await (await this.#fetch(path, init)).json()) as Body;
  }

  async streams(signal?: AbortSignal): Promise<StreamRow[]> {
    const { streams } = await this.#json("streams", { signal: signal ?? null });
    return (streams as Partial<StreamRow>[]).map((row) => ({
      id: String(row.id),
      userId: String(row.userId ?? ""),
      status: row.status ?? "unknown",
      fps: row.fps ?? 0,
      viewers: row.viewers ?? 0,
      startedAt: row.startedAt ?? 0,
      lastFrameAt: row.lastFrameAt ?? null,
      info: row.info ?? {},
    }));
  }

  async alerts(options: { since?: number; limit?: number; stream?: string } = {}): Promise<Alert[]> {
    const query = new URLSearchParams({ order: "desc", limit: String(options.limit ?? 500) });
    if (options.since) query.set("since", String(options.since));
    if (options.stream) query.set("streamId", options.stream);
    const { alerts } = await this.#json(`alerts?${query}`);
    return (alerts as unknown[]).map(readAlert).filter((alert) => alert !== null);
  }

  /** The picture of the frame that an alert refers to; null: none is kept. */
  async alertPicture(alert: Alert): Promise<Blob | null> {
    const path = `alerts/${encodeURIComponent(alert.id)}/frame.jpg?streamId=${encodeURIComponent(alert.streamId)}`;
    try {
      return await (await this.#fetch(path)).blob();
    } catch (error) {
      if (error instanceof ApiError && error.fault === "not-found") return null;
      throw error;
    }
  }

  /** The newest picture of a stream, as the camera sent it; null: there is none. */
  async picture(stream: string): Promise<{ blob: Blob; frameId: string } | null> {
    try {
      const response = await this.#fetch(`streams/${encodeURIComponent(stream)}/frame.jpg`);
      return { blob: await response.blob(), frameId: response.headers.get("X-Frame-Id") ?? "" };
    } catch (error) {
      if (error instanceof ApiError && error.fault === "not-found") return null;
      throw error;
    }
  }

  /** The body of `/health`, also with status 503; null: there is no response. */
  async health(): Promise<HealthReply | null> {
    try {
      const response = await fetch(`${BASE}health?limit=0`, { credentials: "omit" });
      return (await response.json()) as HealthReply;
    } catch {
      return null;
    }
  }

  /** The text of `/metrics`, which may require `STATS_TOKEN`. */
  async metrics(statsToken: string | null): Promise<string> {
    return (await this.#fetch("metrics", {}, statsToken)).text();
  }

  /** How long frames and alerts of all streams take, which may require `STATS_TOKEN`; null: nothing was measured. */
  async latency(statsToken: string | null): Promise<Latency | null> {
    return (await (await this.#fetch("latency", {}, statsToken)).json()).total;
  }

  async streamLatency(stream: string): Promise<Latency> {
    return (await this.#json(`streams/${encodeURIComponent(stream)}/latency`)) as unknown as Latency;
  }

  async shares(stream: string): Promise<Share[]> {
    const { shares } = await this.#json(`streams/${encodeURIComponent(stream)}/shares`);
    return (shares as Body[]).map(readShare);
  }

  async share(stream: string, seconds: number, alerts: boolean): Promise<Share> {
    const body = JSON.stringify({ seconds, alerts });
    const headers = { "Content-Type": "application/json" };
    return readShare(await this.#json(`streams/${encodeURIComponent(stream)}/shares`, { method: "POST", body, headers }));
  }

  async endShare(stream: string, share: string): Promise<void> {
    const path = `streams/${encodeURIComponent(stream)}/shares/${encodeURIComponent(share)}`;
    await this.#fetch(path, { method: "DELETE" });
  }
}

function readShare(given: Body): Share {
  const time = (value: unknown) => (typeof value === "number" ? value : null);
  return {
    id: String(given.id ?? ""),
    token: typeof given.token === "string" ? given.token : null,
    createdAt: time(given.createdAt),
    endsAt: time(given.endsAt),
    alerts: given.alerts === true,
  };
}

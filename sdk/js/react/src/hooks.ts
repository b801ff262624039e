"use client";

import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import type { Alert, StateEvent, StreamSummary } from "@watchout/client/browser";
import { useWatchout } from "./provider.js";
import { storeOf, UNKNOWN, type StreamState } from "./stream-store.js";

const IDLE: StateEvent = { state: "idle" };

/** State of the connection: `idle`, `connecting`, `online`, `waiting` with the time of the next attempt, `closed`. */
export function useConnection(): StateEvent {
  const client = useWatchout();
  const subscribe = useCallback((listener: () => void) => client.on("state", listener), [client]);
  return useSyncExternalStore(
    subscribe,
    () => client.stateEvent,
    () => IDLE,
  );
}

/** Status of a stream, and age and rate of its picture. Renders about once a second, not per frame. */
export function useStream(id: string): StreamState {
  const client = useWatchout();
  const store = storeOf(client, id);
  return useSyncExternalStore(store.subscribe, store.snapshot, () => UNKNOWN);
}

export interface StreamsResult {
  /** The streams that the user may view; empty before the first answer. */
  readonly streams: readonly StreamSummary[];
  /** Why the last request failed; `streams` is then the result of the one before. */
  readonly error: Error | undefined;
  readonly loading: boolean;
  /** Fetch the list now. */
  readonly refresh: () => void;
}

/** The list of streams, fetched every `everyMs` while the page is visible. Default 5000. */
export function useStreams({ everyMs = 5_000 }: { readonly everyMs?: number } = {}): StreamsResult {
  const client = useWatchout();
  const [asked, setAsked] = useState(0);
  const [result, setResult] = useState<Omit<StreamsResult, "refresh">>({ streams: [], error: undefined, loading: true });
  useEffect(() => {
    let isOver = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async (): Promise<void> => {
      clearTimeout(timer);
      if (isOver) return;
      try {
        const streams = await client.streams();
        if (!isOver) setResult({ streams, error: undefined, loading: false });
      } catch (error) {
        const reason = error instanceof Error ? error : new Error(String(error));
        if (!isOver) setResult((before) => ({ ...before, error: reason, loading: false }));
      }
      clearTimeout(timer); // two requests may have been under way
      if (!isOver && !document.hidden) timer = setTimeout(() => void ask(), everyMs);
    };
    const look = (): void => {
      if (!document.hidden) void ask();
    };
    document.addEventListener("visibilitychange", look);
    void ask();
    return () => {
      isOver = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, [client, everyMs, asked]);
  const refresh = useCallback(() => setAsked((before) => before + 1), []);
  return useMemo(() => ({ ...result, refresh }), [result, refresh]);
}

export interface AlertsOptions {
  /** Keep at most this many, the newest. Default 100. */
  readonly limit?: number;
  /** Time in ms since the epoch; alerts since then are delivered first. Default: alerts from now on. */
  readonly since?: number;
  /** Called for each alert, once. */
  readonly onAlert?: (alert: Alert) => void;
}

/** An alert, and who acknowledged it. */
export type ShownAlert = Alert & {
  readonly acknowledgedBy?: { readonly userId?: string; readonly note?: string; readonly timestamp: number };
};

/** The alerts of these streams, newest first, each once. */
export function useAlerts(ids: string | readonly string[], options: AlertsOptions = {}): readonly ShownAlert[] {
  const client = useWatchout();
  const { limit = 100, since } = options;
  const onAlert = useRef(options.onAlert);
  useEffect(() => {
    onAlert.current = options.onAlert;
  });
  const [alerts, setAlerts] = useState<readonly ShownAlert[]>([]);
  const key = typeof ids === "string" ? ids : [...ids].sort().join(" "); // no stream id has a space
  useEffect(() => {
    setAlerts([]);
    const views = key.split(" ").filter(Boolean).map((id) => client.view(id, since === undefined ? {} : { alertsSince: since }));
    for (const view of views) {
      view.on("alert", (alert) => {
        setAlerts((before) => {
          if (before.some((each) => each.id === alert.id && each.streamId === alert.streamId)) return before;
          return [alert, ...before].slice(0, limit);
        });
        onAlert.current?.(alert);
      });
      view.on("acknowledged", ({ alertId, streamId, ...acknowledgedBy }) => {
        setAlerts((before) =>
          before.map((each) => (each.id === alertId && each.streamId === streamId ? { ...each, acknowledgedBy } : each)),
        );
      });
    }
    return () => views.forEach((view) => view.close());
  }, [client, key, since, limit]);
  return alerts;
}

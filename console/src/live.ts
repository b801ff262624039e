/** One client for all views of the console, the list of streams, and the alerts. */

import { setWorkerUrl, Watchout, type View } from "@watchout/client/browser";
import { Api, ApiError, BASE, type StreamRow } from "./api";
import { Cell } from "./cell";
import { Notifier } from "./notifier";
import * as alerts from "./pure/alerts";
import type { Alert, AlertList } from "./pure/alerts";
import type { Credential } from "./pure/route";
import type { ConnectionFacts } from "./pure/words";
import { leave } from "./session";
import { say } from "./ui";

declare const WORKER_FILE: string;
setWorkerUrl(`${BASE}console/${WORKER_FILE}`);

/** Interval at which the list of streams is fetched, in ms. */
const LIST_EVERY_MS = 4000;
const LIST_HIDDEN_MS = 15_000;
/** Most streams of which this page receives alerts; the gateway's default for one socket is 1000. */
const MOST_HEARD = 500;

export type Denied = "alerts" | "frames" | "both";

export interface Streams {
  rows: readonly StreamRow[];
  /** Whether the list was fetched at least once. */
  known: boolean;
  fault: ApiError | null;
  /** When the list may be fetched again after a refusal, ms since the epoch. */
  retryAt: number;
}

export class Live {
  readonly client: Watchout;
  readonly connection = new Cell<ConnectionFacts>({ state: "idle" });
  readonly streams = new Cell<Streams>({ rows: [], known: false, fault: null, retryAt: 0 });
  readonly alerts = new Cell<AlertList>(alerts.EMPTY);
  /** Null until the recent alerts were fetched. */
  readonly alertsFault = new Cell<ApiError | null>(null);
  readonly alertsKnown = new Cell(false);
  readonly notifier = new Notifier();
  /**
   * What the user may not receive of a stream. Views of one stream share a subscription, which is refused as a whole: after a
   * refusal frames are requested without alerts, and then alerts without frames.
   */
  readonly denied = new Cell<ReadonlyMap<string, Denied>>(new Map());
  readonly #heard = new Map<string, View | null>();
  readonly #began = Date.now();
  readonly #ended = new AbortController();
  #listTimer: ReturnType<typeof setTimeout> | undefined;
  #wasOnline = false;

  /** `credential`: null when the browser's cookie signs in. A ticket opens the one socket, and no request over HTTP. */
  constructor(
    readonly api: Api,
    readonly credential: Credential | null,
  ) {
    const by = credential === null ? {} : credential.kind === "ticket" ? { ticket: credential.value } : { token: credential.value };
    this.client = new Watchout(BASE.replace(/\/$/, ""), by);
    this.client.on("state", ({ state, reason, retryInMs }) => {
      this.connection.set({ state, code: reason?.code, retryAt: retryInMs === undefined ? undefined : Date.now() + retryInMs });
      if (state === "online") {
        if (this.#wasOnline) this.refresh();
        this.#wasOnline = true;
      }
      if (state === "closed" && reason !== undefined && !this.#ended.signal.aborted) leave("ended", reason.message);
    });
    this.client.on("error", (error) => say(error.message, true));
    document.addEventListener("visibilitychange", this.#onVisible);
    if (this.#hasHttp) {
      void this.#list();
      void this.#fetchAlerts();
    } else {
      this.streams.set({ rows: [], known: true, fault: null, retryAt: 0 });
      this.alertsKnown.set(true);
    }
  }

  get #hasHttp(): boolean {
    return this.credential?.kind !== "ticket";
  }

  close(): void {
    this.#ended.abort();
    clearTimeout(this.#listTimer);
    document.removeEventListener("visibilitychange", this.#onVisible);
    this.client.close();
  }

  /** Fetch the list of streams now. */
  refresh(): void {
    clearTimeout(this.#listTimer);
    if (this.#hasHttp) void this.#list();
  }

  /** A view of a stream's frames; its alerts are received without it. */
  watch(stream: string, maxFps: number | null): View {
    if (!this.#hasHttp) this.#hear([stream]);
    const view = this.client.view(stream, { alerts: false, ...(maxFps === null ? {} : { maxFps }) });
    if (this.denied.value.get(stream) === "alerts") this.#onRefused(view, "frames");
    return view;
  }

  /** Whether frames alone or alerts alone are still to be tried after a refusal of this stream. */
  isTrying(stream: string): boolean {
    const denied = this.denied.value.get(stream);
    return this.#heard.has(stream) && denied !== "frames" && denied !== "both";
  }

  #onRefused(view: View, denied: Denied): void {
    view.on("status", (status) => {
      if (status !== "forbidden") return;
      const { streamId } = view;
      this.#heard.get(streamId)?.close();
      this.#heard.set(streamId, null);
      this.denied.update((all) => new Map(all).set(streamId, denied));
      if (denied === "frames") this.#hearOne(streamId);
    });
  }

  see(list: readonly Alert[]): void {
    this.alerts.update((all) => alerts.seen(all, list.map(alerts.keyOf)));
  }

  /** Removes a stream that is gone from the list. */
  forget(stream: string): void {
    this.#heard.get(stream)?.close();
    this.#heard.delete(stream);
    this.streams.update((all) => ({ ...all, rows: all.rows.filter((row) => row.id !== stream) }));
  }

  /** Acknowledges an alert; the notification that all receive confirms it. Throws when there is no connection. */
  acknowledge(alert: Alert, note: string): void {
    if (!this.client.acknowledge(alert.streamId, alert.id, note || undefined)) throw new Error("there is no connection now");
  }

  readonly #onVisible = (): void => {
    if (!document.hidden) this.refresh();
  };

  async #list(): Promise<void> {
    let next = LIST_EVERY_MS;
    try {
      const rows = await this.api.streams(this.#ended.signal);
      if (this.#ended.signal.aborted) return;
      this.streams.update((before) => ({ rows: merged(before.rows, rows), known: true, fault: null, retryAt: 0 }));
      this.#hear(rows.map((row) => row.id));
    } catch (error) {
      if (this.#ended.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      if (error.fault === "signed-out") {
        leave("ended", error.message);
        return;
      }
      next = Math.max(next, error.retryS * 1000);
      this.streams.update((before) => ({ ...before, fault: error, retryAt: Date.now() + next }));
    }
    clearTimeout(this.#listTimer);
    // A hidden tab goes on, slowly: it has to receive the alerts of new streams.
    if (document.hidden) next = Math.max(next, LIST_HIDDEN_MS);
    this.#listTimer = setTimeout(() => void this.#list(), next);
  }

  /** Subscribes to the alerts of streams. */
  #hear(ids: readonly string[]): void {
    for (const id of ids) {
      if (!this.#heard.has(id) && this.#heard.size < MOST_HEARD) this.#hearOne(id);
    }
  }

  #hearOne(id: string): void {
    const view = this.client.view(id, { frames: false, alerts: true, alertsSince: this.#began });
    this.#heard.set(id, view);
    this.#onRefused(view, this.denied.value.get(id) === "frames" ? "both" : "alerts");
    view.on("alert", (message) => {
      const alert = alerts.readAlert(message);
      if (alert !== null) this.#add([alert], true);
    });
    view.on("acknowledged", (message) => {
      const by = alerts.readAcknowledgement(message);
      if (by !== null) this.alerts.update((all) => alerts.acknowledge(all, `${id} ${message.alertId}`, by));
    });
    view.on("recovery", ({ recovered }) => {
      if (!recovered && this.#hasHttp) void this.#fetchAlerts();
    });
  }

  #add(more: readonly Alert[], fresh: boolean): void {
    const { list, added } = alerts.merge(this.alerts.value, more, fresh);
    this.alerts.set(list);
    if (fresh) for (const alert of added) this.notifier.tell(alert);
  }

  /** Fetches the recent alerts. */
  async #fetchAlerts(): Promise<void> {
    try {
      const kept = await this.api.alerts();
      if (this.#ended.signal.aborted) return;
      this.#add(kept, false);
      this.alertsFault.set(null);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.alertsFault.set(error);
    }
    this.alertsKnown.set(true);
  }

  retryAlerts(): void {
    void this.#fetchAlerts();
  }
}

/** Returns the new list, and after it the streams that were on the former list and are gone. */
function merged(before: readonly StreamRow[], rows: readonly StreamRow[]): StreamRow[] {
  const there = new Set(rows.map((row) => row.id));
  const gone = before.filter((row) => !there.has(row.id)).slice(0, 50);
  return [
    ...rows.toSorted((a, b) => a.id.localeCompare(b.id, undefined, { numeric: true })),
    ...gone.map((row) => ({ ...row, status: "offline" as const, fps: 0, viewers: 0 })),
  ];
}

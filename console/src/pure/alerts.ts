/** The list of alerts: merging, acknowledging, filtering, and moving through it. Pure. */

import { SEVERITIES, type Severity } from "./route";

export interface Acknowledgement {
  userId: string;
  note: string | null;
  timestamp: number;
}

export interface Alert {
  id: string;
  streamId: string;
  severity: Severity;
  message: string;
  timestamp: number;
  frameId: number | null;
  metadata: Record<string, unknown>;
  acknowledged: Acknowledgement | null;
}

export interface AlertList {
  /** Newest first. */
  alerts: readonly Alert[];
  /** Keys of those that arrived while the page was open and were not opened yet. */
  unseen: ReadonlySet<string>;
}

export const EMPTY: AlertList = { alerts: [], unseen: new Set() };
/** Most alerts that the page keeps; the oldest go first. */
export const MOST_ALERTS = 1000;

export function keyOf(alert: { streamId: string; id: string }): string {
  return `${alert.streamId} ${alert.id}`;
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

function whole(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** Reads the acknowledgement of an alert; null: there is none, or it has another form. */
export function readAcknowledgement(value: unknown): Acknowledgement | null {
  if (typeof value !== "object" || value === null) return null;
  const given = value as Record<string, unknown>;
  return { userId: text(given.userId) ?? "", note: text(given.note), timestamp: whole(given.timestamp) ?? 0 };
}

/** Reads an alert from a socket or from `GET /alerts`; null: it is none. */
export function readAlert(value: unknown): Alert | null {
  if (typeof value !== "object" || value === null) return null;
  const given = value as Record<string, unknown>;
  const id = text(given.id);
  const streamId = text(given.streamId);
  const severity = given.severity as Severity;
  if (id === null || streamId === null || !SEVERITIES.includes(severity)) return null;
  const metadata = given.metadata;
  return {
    id,
    streamId,
    severity,
    message: text(given.message) ?? "",
    timestamp: whole(given.timestamp) ?? 0,
    frameId: whole(given.frameId),
    metadata: typeof metadata === "object" && metadata !== null ? (metadata as Record<string, unknown>) : {},
    acknowledged: readAcknowledgement(given.acknowledged),
  };
}

/** Adds alerts, each once. `fresh`: they have just happened. Returns the list, and those that were not in it. */
export function merge(list: AlertList, more: readonly Alert[], fresh: boolean): { list: AlertList; added: Alert[] } {
  const known = new Map(list.alerts.map((alert) => [keyOf(alert), alert]));
  const added: Alert[] = [];
  let changed = false;
  for (const alert of more) {
    const key = keyOf(alert);
    const before = known.get(key);
    if (before === undefined) {
      added.push(alert);
      known.set(key, alert);
    } else if (before.acknowledged === null && alert.acknowledged !== null) {
      known.set(key, { ...before, acknowledged: alert.acknowledged });
      changed = true;
    }
  }
  if (!added.length && !changed) return { list, added };
  const alerts = [...known.values()].sort((a, b) => b.timestamp - a.timestamp).slice(0, MOST_ALERTS);
  const kept = new Set(alerts.map(keyOf));
  const unseen = new Set([...list.unseen, ...(fresh ? added.map(keyOf) : [])].filter((key) => kept.has(key)));
  return { list: { alerts, unseen }, added };
}

export function acknowledge(list: AlertList, key: string, by: Acknowledgement): AlertList {
  const at = list.alerts.findIndex((alert) => keyOf(alert) === key);
  const alert = list.alerts[at];
  if (alert === undefined || alert.acknowledged !== null) return list;
  const alerts = [...list.alerts];
  alerts[at] = { ...alert, acknowledged: by };
  return { ...list, alerts };
}

export function seen(list: AlertList, keys: Iterable<string>): AlertList {
  const unseen = new Set(list.unseen);
  for (const key of keys) unseen.delete(key);
  return unseen.size === list.unseen.size ? list : { ...list, unseen };
}

export interface Filter {
  severity: Severity;
  stream: string | null;
  /** Only those that nobody acknowledged. */
  open: boolean;
}

export function filtered(alerts: readonly Alert[], filter: Filter): Alert[] {
  const least = SEVERITIES.indexOf(filter.severity);
  return alerts.filter(
    (alert) =>
      SEVERITIES.indexOf(alert.severity) >= least &&
      (filter.stream === null || alert.streamId === filter.stream) &&
      (!filter.open || alert.acknowledged === null),
  );
}

/** The alert that is `step` further down the list; the first when none is chosen or it is not in the list. */
export function neighbour(alerts: readonly Alert[], chosen: string | null, step: number): Alert | null {
  const at = alerts.findIndex((alert) => keyOf(alert) === chosen);
  if (at < 0) return alerts[0] ?? null;
  return alerts[Math.min(alerts.length - 1, Math.max(0, at + step))] ?? null;
}

/** Which alert to choose after one was acknowledged: the next that nobody acknowledged, further down or else above. */
export function nextOpen(alerts: readonly Alert[], chosen: string): Alert | null {
  const at = alerts.findIndex((alert) => keyOf(alert) === chosen);
  const open = (alert: Alert) => alert.acknowledged === null && keyOf(alert) !== chosen;
  return alerts.slice(at + 1).find(open) ?? alerts.slice(0, Math.max(0, at)).reverse().find(open) ?? null;
}

/** Reads `/metrics`, and describes in sentences what is wrong. Pure. */

/** The values of each process by name of the metric, without `watchout_`; totals are under the process "". */
export type Metrics = ReadonlyMap<string, ReadonlyMap<string, number>>;

const LINE = /^watchout_([a-z0-9_]+)(?:\{([^}]*)\})? (\S+)$/;

export function readMetrics(page: string): Metrics {
  const found = new Map<string, Map<string, number>>();
  for (const line of page.split("\n")) {
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, name = "", labels = "", raw = ""] = match;
    const process = /process="((?:[^"\\]|\\.)*)"/.exec(labels)?.[1] ?? "";
    const task = /task="/.test(labels);
    const value = Number(raw);
    if (!Number.isFinite(value)) continue;
    let values = found.get(process);
    if (values === undefined) found.set(process, (values = new Map()));
    values.set(name, (task ? (values.get(name) ?? 0) : 0) + value);
  }
  return found;
}

export type Kind = "gateway" | "router" | "mlbridge";

export interface ProcessRow {
  name: string;
  kind: Kind;
  uptimeS: number;
  /** Share of one core since the last reading; null: this is the first. */
  cpu: number | null;
  memory: number;
  values: ReadonlyMap<string, number>;
}

export function kindOf(values: ReadonlyMap<string, number>, name: string): Kind {
  if (values.has("members")) return "router";
  if (values.has("ml_configured")) return "mlbridge";
  return name.startsWith("router") ? "router" : name.startsWith("mlbridge") ? "mlbridge" : "gateway";
}

/** The rows of the table of processes. `before` was read `elapsedS` seconds ago. */
export function processes(metrics: Metrics, before: Metrics | null, elapsedS: number): ProcessRow[] {
  const rows: ProcessRow[] = [];
  for (const [name, values] of metrics) {
    if (!name || !values.has("uptime_seconds")) continue;
    const earlier = before?.get(name)?.get("cpu_seconds_total");
    const cpu = values.get("cpu_seconds_total");
    rows.push({
      name,
      kind: kindOf(values, name),
      uptimeS: values.get("uptime_seconds") ?? 0,
      cpu: earlier === undefined || cpu === undefined || elapsedS <= 0 ? null : Math.max(0, cpu - earlier) / elapsedS,
      memory: values.get("resident_bytes") ?? 0,
      values,
    });
  }
  const order: Kind[] = ["router", "gateway", "mlbridge"];
  return rows.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind) || a.name.localeCompare(b.name));
}

export function sum(metrics: Metrics, name: string): number {
  let total = 0;
  for (const [process, values] of metrics) if (process) total += values.get(name) ?? 0;
  return total;
}

/** Why frames were dropped for viewers, with the words for it, in the order of the page. */
export const DROPS: readonly [string, string][] = [
  ["frames_dropped_rate_total", "the viewer asked for fewer"],
  ["frames_dropped_slow_total", "the viewer's network was slow"],
  ["frames_dropped_window_total", "the viewer had not acknowledged the ones before"],
  ["frames_dropped_gone_total", "the viewer left"],
  ["frames_dropped_codec_total", "the reader accepts other codecs"],
  ["frames_dropped_undecodable_total", "not a picture"],
  ["frames_dropped_bus_total", "the way between processes was full"],
];

export type Level = "good" | "note" | "bad";
export interface Finding {
  level: Level;
  text: string;
  /** What to do about it. */
  hint: string;
}

export interface HealthReply {
  status: string;
  reason?: string | undefined;
}

/** Returns one sentence for each problem that the metrics and `/health` show. */
export function findings(health: HealthReply | null, metrics: Metrics | null, before: Metrics | null): Finding[] {
  const found: Finding[] = [];
  const say = (level: Level, text: string, hint = "") => found.push({ level, text, hint });
  if (health === null) say("bad", "The gateway does not answer.", "Is it running? honcho start, or make run.");
  else if (health.status !== "healthy")
    say("bad", `The gateway cannot serve: ${health.reason ?? "no reason is given"}.`, hintOf(health.reason ?? ""));
  if (metrics === null) return found;
  const rising = (values: ReadonlyMap<string, number>, process: string, name: string) =>
    before?.has(process) ? (values.get(name) ?? 0) - (before.get(process)?.get(name) ?? 0) : 0;
  const bridges = processes(metrics, null, 0).filter((row) => row.kind === "mlbridge");
  if (metrics.get("")?.get("router_up") === 1) {
    if (!bridges.length)
      say("note", "No mlbridge is joined, so nothing is analysed.", "Start one: watchout-mlbridge, or honcho start.");
    else if (!bridges.some((row) => row.values.get("ml_configured") === 1))
      say("note", "No ML service is set, so nothing is analysed.", "Set ML_SERVICE_URL and restart mlbridge.");
  }
  for (const row of processes(metrics, null, 0)) {
    const value = (name: string) => row.values.get(name) ?? 0;
    const breaker = value("ml_breaker_state");
    if (breaker === 2)
      say("bad", `${row.name}: the ML service failed again and again; it is asked rarely now.`, "watchout-ctl ml check says what it does wrong.");
    else if (breaker === 1) say("note", `${row.name}: the ML service failed; whether it works again is being tried.`);
    if (value("ml_endpoint") === 1) say("note", `${row.name}: ML_FALLBACK_URL gets the frames.`, "ML_SERVICE_URL is away.");
    if (value("ml_streams") > 0 && breaker === 0 && row.values.has("ml_coverage_min") && value("ml_coverage_min") < 0.5)
      say("note", `${row.name}: a stream was analysed for only ${Math.round(value("ml_coverage_min") * 100)} % of the last minute.`, "The ML service is slower than the cameras: more of them, or fewer frames (ML_FPS).");
    if (rising(row.values, row.name, "ml_results_unusable_total") > 0)
      say("bad", `${row.name}: the ML service answers in a form that is none.`, "docs/ml-team.md has the forms; watchout-ctl ml check names the fault.");
    if (value("ml_streams_refused") > 0)
      say("note", `${row.name}: the ML service refuses the frames of some streams (${value("ml_streams_refused")}).`);
    if (value("tasks_stalled") > 0) say("bad", `${row.name}: periodic work has stalled.`, "Its log names the task.");
    if (rising(row.values, row.name, "task_failures_total") > 0)
      say("bad", `${row.name}: background work failed just now, and went on.`, "Its log has the traceback.");
    const limit = value("connections_limit");
    if (limit > 0 && value("connections") > 0.8 * limit)
      say("note", `${row.name}: ${value("connections")} of ${limit} connections are open.`, "Raise MAX_CONNECTIONS and the limit of open files.");
    const files = value("descriptors_limit");
    if (files > 0 && value("descriptors_open") > 0.8 * files)
      say("note", `${row.name}: ${value("descriptors_open")} of ${files} open files are used.`, "Raise the limit of open files (ulimit -n, LimitNOFILE).");
    if (rising(row.values, row.name, "auth_unavailable_total") > 0)
      say("bad", `${row.name}: the session store could not be asked.`, "Is DATABASE_URL reachable? watchout-ctl doctor says more.");
    if (value("alert_webhook_disabled") === 1)
      say("bad", "The alert webhook answered 410: nothing is sent to it any more.", "Correct ALERT_WEBHOOK_URL and restart the router.");
    if (value("alert_webhook_waiting") > 100)
      say("note", `${value("alert_webhook_waiting")} alerts wait for the webhook.`);
    if (value("stream_reservations_unsaved") === 1)
      say("bad", "The router cannot write reservations of stream ids to its disk.", "Is the disk of WATCHOUT_HOME full or read-only?");
    if (rising(row.values, row.name, "newest_frames_evicted_total") > 0)
      say("note", `${row.name}: newest frames are evicted for memory.`, "Raise NEWEST_FRAME_BYTES.");
  }
  if (!found.length) say("good", "Nothing is wrong that can be seen from here.", "watchout-ctl doctor looks deeper, at settings, schema, keys and clocks.");
  return found;
}

function hintOf(reason: string): string {
  if (reason.includes("router")) return "Is the router running? The processes with one WATCHOUT_HOME work together.";
  if (reason.includes("session")) return "Is DATABASE_URL reachable? watchout-ctl doctor says more.";
  if (reason.includes("room")) return "Raise MAX_CONNECTIONS and the limit of open files, or start another gateway.";
  return "";
}

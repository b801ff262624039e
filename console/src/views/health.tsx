/** Health: problems as sentences, the processes, the ML service, and the streams. */

import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api";
import { useCell } from "../cell";
import { Icon } from "../icons";
import { Latencies } from "../latency";
import type { Live } from "../live";
import { bytes, count, milliseconds, percent, rate, span } from "../pure/format";
import { DROPS, findings, processes, readMetrics, sum, type HealthReply, type Metrics, type ProcessRow } from "../pure/metrics";
import type { Latency } from "../pure/latency";
import { formatRoute } from "../pure/route";
import { Facts, Notice, Table } from "../ui";

const EVERY_MS = 3000;
export const STATS_KEY = "watchout.stats";

interface Reading {
  health: HealthReply | null;
  metrics: Metrics | null;
  before: Metrics | null;
  /** null: nothing was measured, or the gateway does not tell. */
  latency: Latency | null;
  at: number;
  elapsedS: number;
  /** How long `/health/live` took, in ms; null: it did not answer. */
  round: number | null;
  locked: boolean;
}

export function HealthView({ live }: { live: Live }) {
  const [reading, setReading] = useState<Reading | null>(null);
  const [token, setToken] = useState(() => sessionStorage.getItem(STATS_KEY));
  useEffect(() => {
    let ended = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = async () => {
      const began = performance.now();
      const health = await live.api.health();
      const round = health === null ? null : performance.now() - began;
      let metrics: Metrics | null = null;
      let latency: Latency | null = null;
      let locked = false;
      try {
        metrics = readMetrics(await live.api.metrics(token));
        latency = await live.api.latency(token).catch(() => null);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        locked = error.fault === "signed-out";
      }
      if (ended) return;
      const at = Date.now();
      setReading((last) => ({
        health, metrics, latency, round, locked, at,
        before: last?.metrics ?? null,
        elapsedS: last ? (at - last.at) / 1000 : 0,
      }));
      timer = setTimeout(() => void read(), EVERY_MS);
    };
    void read();
    return () => ((ended = true), clearTimeout(timer));
  }, [live, token]);
  if (reading === null)
    return (
      <>
        <h1 class="hidden">Health</h1>
        <Notice icon="health" title="Asking …" busy />
      </>
    );
  const { health, metrics, before, elapsedS } = reading;
  const rows = metrics === null ? [] : processes(metrics, before, elapsedS);
  return (
    <section class="health">
      <div class="toolbar">
        <h1>Health</h1>
        <span class={`state ${health?.status === "healthy" ? "live" : "stale"}`}>{health?.status ?? "no answer"}</span>
        <span class="spring" />
        <span class="dim">{reading.round === null ? "" : `this page to the gateway and back, with its checks: ${milliseconds(reading.round)}`}</span>
      </div>
      <ul class="findings" aria-label="Findings">
        {findings(health, metrics, before).map(({ level, text, hint }) => (
          <li key={text} class={level}>
            <Icon name={level === "good" ? "check" : "warn"} />
            <span>
              {text} <span class="dim">{hint}</span>
            </span>
          </li>
        ))}
      </ul>
      {reading.locked && (
        <StatsToken
          wrong={token !== null}
          set={(text) => {
            sessionStorage.setItem(STATS_KEY, text);
            setToken(text);
          }}
        />
      )}
      {metrics !== null && <Totals metrics={metrics} before={before} elapsedS={elapsedS} />}
      {rows.length > 0 && <Processes rows={rows} />}
      <Bridges rows={rows.filter((row) => row.kind === "mlbridge")} />
      <Latencies of={reading.latency} />
      <StreamTable live={live} />
    </section>
  );
}

function StatsToken({ wrong, set }: { wrong: boolean; set: (token: string) => void }) {
  const [text, setText] = useState("");
  return (
    <form class="card row" onSubmit={(event) => (event.preventDefault(), set(text.trim()))}>
      <label class="field">
        <span>{wrong ? "That is not the stats token" : "The numbers are behind STATS_TOKEN"}</span>
        <input type="password" autocomplete="off" value={text} onInput={(event) => setText(event.currentTarget.value)} />
      </label>
      <button disabled={!text.trim()}>Show</button>
    </form>
  );
}

function Totals({ metrics, before, elapsedS }: { metrics: Metrics; before: Metrics | null; elapsedS: number }) {
  const of = (name: string) => metrics.get("")?.get(name) ?? 0;
  const each = (name: string) => (before === null || elapsedS <= 0 ? null : Math.max(0, sum(metrics, name) - sum(before, name)) / elapsedS);
  const perSecond = (name: string, format: (value: number) => string) => {
    const value = each(name);
    return value === null ? "–" : format(value);
  };
  const dropped = DROPS.reduce((total, [name]) => total + (each(name) ?? 0), 0);
  const facts: [string, string][] = [
    ["Streams", count(of("active_streams"))],
    ["Viewers", count(of("video_consumers"))],
    ["Connections", count(sum(metrics, "connections"))],
    ["Frames in", perSecond("frames_in_total", (value) => `${rate(value)}/s`)],
    ["Frames out", perSecond("frames_out_total", (value) => `${rate(value)}/s`)],
    ["Out", perSecond("frame_bytes_out_total", (value) => `${bytes(value)}/s`)],
    ["Dropped", before === null ? "–" : `${rate(dropped)}/s`],
    ["Alerts", count(metrics.get("router")?.get("alerts_total") ?? 0)],
  ];
  return <Facts big of={facts} />;
}

function Processes({ rows }: { rows: readonly ProcessRow[] }) {
  return (
    <Table label="Processes" columns={["Process", "Kind", "Up", "CPU", "Memory", "Connections"]}>
      {rows.map((row) => (
        <tr key={row.name}>
          <th scope="row">{row.name}</th>
          <td>{row.kind}</td>
          <td>{span(row.uptimeS * 1000)}</td>
          <td>{row.cpu === null ? "–" : percent(row.cpu)}</td>
          <td>{bytes(row.memory)}</td>
          <td>{row.values.has("connections") ? count(row.values.get("connections") ?? 0) : "–"}</td>
        </tr>
      ))}
    </Table>
  );
}

const BREAKER = ["works", "is tried again", "fails"];

function Bridges({ rows }: { rows: readonly ProcessRow[] }) {
  const set = rows.filter((row) => row.values.get("ml_configured") === 1);
  if (!set.length) return null;
  return (
    <Table
      label="ML service"
      caption="ML service, by bridge"
      columns={["Bridge", "Service", "Streams", "Coverage", "Least", "Latency p50", "p99", "In flight", "Requests", "Failures"]}
    >
      {set.map(({ name, values }) => {
        const value = (metric: string) => values.get(metric) ?? 0;
        return (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{BREAKER[value("ml_breaker_state")] ?? "–"}</td>
            <td>{count(value("ml_streams"))}</td>
            <td>
              <meter min={0} max={1} low={0.5} optimum={1} value={value("ml_coverage_mean")} aria-label={`Coverage of ${name}`} />{" "}
              {percent(value("ml_coverage_mean"))}
            </td>
            <td>{percent(value("ml_coverage_min"))}</td>
            <td>{milliseconds(value("ml_latency_p50_seconds") * 1000)}</td>
            <td>{milliseconds(value("ml_latency_p99_seconds") * 1000)}</td>
            <td>
              {count(value("ml_in_flight"))} of {count(value("ml_in_flight_limit"))}
            </td>
            <td>{count(value("ml_requests_total"))}</td>
            <td>{count(value("ml_failures_total") + value("ml_timeouts_total"))}</td>
          </tr>
        );
      })}
    </Table>
  );
}

function StreamTable({ live }: { live: Live }) {
  const { rows } = useCell(live.streams);
  if (!rows.length) return null;
  return (
    <Table label="Streams" caption="Your streams" columns={["Stream", "State", "Rate", "Viewers", "Owner", "Last frame"]}>
      {rows.map((row) => (
        <tr key={row.id}>
          <th scope="row">
            <a href={formatRoute({ view: "stream", id: row.id })}>{row.id}</a>
          </th>
          <td>{row.status}</td>
          <td>{rate(row.fps)} fps</td>
          <td>{row.viewers}</td>
          <td>{row.userId}</td>
          <td>{row.lastFrameAt === null ? "–" : `${span(Math.max(0, Date.now() - row.lastFrameAt))} ago`}</td>
        </tr>
      ))}
    </Table>
  );
}

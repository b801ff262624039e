import assert from "node:assert/strict";
import { test } from "node:test";
import { findings, processes, readMetrics, sum } from "../src/pure/metrics";

const PAGE = `# HELP watchout_router_up 1 when this gateway reaches the router.
# TYPE watchout_router_up gauge
watchout_router_up 1.0
watchout_uptime_seconds{process="router"} 100.0
watchout_uptime_seconds{process="gateway.1"} 50.5
watchout_uptime_seconds{process="mlbridge.1"} 9.0
watchout_members{process="router"} 2.0
watchout_ml_configured{process="mlbridge.1"} 1.0
watchout_ml_breaker_state{process="mlbridge.1"} 0.0
watchout_cpu_seconds_total{process="gateway.1"} 4.0
watchout_resident_bytes{process="gateway.1"} 6.5e+07
watchout_connections{process="gateway.1"} 7.0
watchout_frames_in_total{process="gateway.1"} 5.0
watchout_frames_in_total{process="mlbridge.1"} 2.0
watchout_task_failures_total{process="gateway.1",task="a"} 1.0
watchout_task_failures_total{process="gateway.1",task="b"} 2.0
other_metric{process="x"} 3
watchout_odd{process="gateway.1"} NaN
nonsense
`;
const pageWith = (...lines: string[]) => readMetrics(PAGE + lines.map((line) => `watchout_${line}\n`).join(""));
const texts = (...given: Parameters<typeof findings>) => findings(...given).map((each) => each.text);
const HEALTHY = { status: "healthy" };

test("the page of metrics is read by process, tasks summed up", () => {
  const metrics = readMetrics(PAGE);
  assert.equal(metrics.get("")?.get("router_up"), 1);
  assert.equal(metrics.get("gateway.1")?.get("resident_bytes"), 65_000_000);
  assert.equal(metrics.get("gateway.1")?.get("task_failures_total"), 3);
  assert.equal(metrics.get("gateway.1")?.has("odd"), false);
  assert.equal(metrics.has("x"), false);
  assert.equal(sum(metrics, "frames_in_total"), 7);
});

test("processes are told by what they count, in order, with their CPU since the page before", () => {
  const before = readMetrics(PAGE.replace('gateway.1"} 4.0', 'gateway.1"} 3.0'));
  const rows = processes(readMetrics(PAGE), before, 2);
  assert.deepEqual(rows.map((row) => [row.name, row.kind]), [["router", "router"], ["gateway.1", "gateway"], ["mlbridge.1", "mlbridge"]]);
  assert.equal(rows[1]?.cpu, 0.5);
  assert.equal(processes(readMetrics(PAGE), null, 0)[1]?.cpu, null);
});

test("nothing wrong is said as one sentence", () => {
  const [only, ...more] = findings(HEALTHY, readMetrics(PAGE), null);
  assert.equal(only?.level, "good");
  assert.equal(more.length, 0);
});

test("a gateway that does not answer, and one that cannot serve, are said first", () => {
  assert.match(texts(null, null, null)[0] ?? "", /does not answer/);
  assert.match(texts({ status: "unhealthy", reason: "the router is unreachable" }, null, null)[0] ?? "", /router is unreachable/);
});

test("each thing that is wrong has its sentence", () => {
  const cases: [string, RegExp][] = [
    ['ml_endpoint{process="mlbridge.1"} 1', /ML_FALLBACK_URL/],
    ['ml_streams_refused{process="mlbridge.1"} 2', /refuses the frames/],
    ['tasks_stalled{process="router"} 1', /stalled/],
    ['connections_limit{process="gateway.1"} 8', /7 of 8 connections/],
    ['alert_webhook_disabled{process="router"} 1', /410/],
    ['stream_reservations_unsaved{process="router"} 1', /cannot write/],
  ];
  for (const [line, expected] of cases) assert.match(texts(HEALTHY, pageWith(line), null).join(), expected, line);
  const breaker = (state: number) => readMetrics(PAGE.replace('ml_breaker_state{process="mlbridge.1"} 0.0', `ml_breaker_state{process="mlbridge.1"} ${state}.0`));
  assert.match(texts(HEALTHY, breaker(2), null).join(), /failed again and again/);
  assert.match(texts(HEALTHY, breaker(1), null).join(), /is being tried/);
  const low = pageWith('ml_streams{process="mlbridge.1"} 2', 'ml_coverage_min{process="mlbridge.1"} 0.2');
  assert.match(texts(HEALTHY, low, null).join(), /20 % of the last minute/);
});

test("what counts up is said only while it rises", () => {
  const now = pageWith('auth_unavailable_total{process="gateway.1"} 4');
  assert.match(texts(HEALTHY, now, pageWith('auth_unavailable_total{process="gateway.1"} 3')).join(), /session store/);
  assert.doesNotMatch(texts(HEALTHY, now, now).join(), /session store/);
  assert.doesNotMatch(texts(HEALTHY, now, null).join(), /session store/);
});

test("no bridge, and a bridge without a service, are told apart", () => {
  const bare = readMetrics(PAGE.replaceAll(/^.*mlbridge.*$/gm, ""));
  assert.match(texts(HEALTHY, bare, null).join(), /No mlbridge/);
  const unset = readMetrics(PAGE.replace('ml_configured{process="mlbridge.1"} 1.0', 'ml_configured{process="mlbridge.1"} 0.0'));
  assert.match(texts(HEALTHY, unset, null).join(), /No ML service is set/);
});

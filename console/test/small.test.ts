import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, bytes, count, milliseconds, percent, plural, rate, span } from "../src/pure/format";
import { connectionSentence, lookOf, sentence, type Look, type TileFacts } from "../src/pure/words";
import { clamp, MOST, pan, WHOLE, zoomAt } from "../src/pure/zoom";

test("numbers and times are short and have a unit", () => {
  assert.deepEqual([400, 4000, 59_000, 120_000, 7_200_000, 300_000_000].map(span), ["0.4 s", "4 s", "59 s", "2 min", "2 h", "3 d"]);
  assert.equal(ago(1000, 1500), "just now");
  assert.equal(ago(1000, 5000), "4 s ago");
  assert.equal(span(-5), "0 s");
  assert.deepEqual([0, 999, 1500, 999_600, 12_000_000].map(bytes), ["0 B", "999 B", "1.5 kB", "1.0 MB", "12 MB"]);
  assert.deepEqual([12, 1500, 12_000].map(milliseconds), ["12 ms", "1.5 s", "12 s"]);
  assert.deepEqual([0, 9.5, 9.96, 29.97].map(rate), ["0", "9.5", "10", "30"]);
  assert.deepEqual([3, 12_345, 250_000, NaN].map(count), ["3", "12.3k", "250k", "–"]);
  assert.equal(percent(0.256), "26 %");
  assert.deepEqual([plural(1, "frame"), plural(2, "frame")], ["1 frame", "2 frames"]);
});

const LIVE: TileFacts = { state: "live", stale: false, ageMs: 40, stream: "streaming" };

test("a picture is fresh only with frames, a camera and a connection", () => {
  const cases: [Partial<TileFacts>, boolean, Look][] = [
    [{}, true, "live"],
    [{}, false, "stale"],
    [{ stale: true, state: "stale", ageMs: 9000 }, true, "stale"],
    [{ stale: true, state: "stale", ageMs: 9000, stream: "online" }, true, "idle"],
    [{ stream: "offline", state: "offline" }, true, "gone"],
    [{ stream: "offline", state: "paused" }, true, "gone"],
    [{ state: "forbidden", stream: "forbidden" }, true, "forbidden"],
    [{ state: "waiting", ageMs: null, stale: true, stream: "waiting" }, true, "waiting"],
    [{ state: "waiting", ageMs: null, stale: true, stream: "online" }, true, "idle"],
    [{ state: "paused" }, true, "paused"],
  ];
  for (const [facts, connected, look] of cases) assert.equal(lookOf({ ...LIVE, ...facts }, connected), look, JSON.stringify(facts));
  for (const [, , look] of cases) assert.ok(sentence(look, 1000).length > 3);
  assert.equal(sentence("stale", 12_000), "No new picture for 12 s");
});

test("a connection that stands says nothing, another one says why and when", () => {
  for (const state of ["online", "idle", "closed"] as const) assert.equal(connectionSentence({ state }, 0), null);
  assert.match(connectionSentence({ state: "waiting", retryAt: 3400 }, 0) ?? "", /lost; connecting again in 4 s/);
  assert.match(connectionSentence({ state: "waiting", code: "NETWORK_SILENT", retryAt: 0 }, 5) ?? "", /Nothing comes.*again now/);
  const codes = ["RATE_LIMITED", "TOO_MANY_CONNECTIONS", "AUTH_UNAVAILABLE", "ROUTING_ERROR", "NETWORK_SILENT", "ELSE"];
  const said = codes.map((code) => connectionSentence({ state: "waiting", code, retryAt: 1000 }, 0));
  assert.equal(new Set(said).size, codes.length);
});

test("zooming keeps the point under the pointer, and the picture over its frame", () => {
  const twice = zoomAt(WHOLE, 2, 0.25, -0.25);
  assert.deepEqual(twice, { scale: 2, x: -0.25, y: 0.25 });
  assert.equal((0.25 - twice.x) / twice.scale, 0.25, "the point of the picture that was there before");
  assert.deepEqual(zoomAt(twice, 0.001, 0.1, 0.1), WHOLE);
  assert.equal(zoomAt(twice, 1000, 0, 0).scale, MOST);
  assert.deepEqual(pan(twice, 9, -9), { scale: 2, x: 0.5, y: -0.5 });
  assert.deepEqual(pan(WHOLE, 1, 1), WHOLE);
  for (let seed = 1; seed < 400; seed += 1) {
    const random = (n: number) => ((seed * 7919 + n * 104_729) % 1000) / 1000;
    const first = zoomAt(WHOLE, 1 + 4 * random(1), random(2) - 0.5, random(3) - 0.5);
    const zoom = zoomAt(pan(first, random(4) - 0.5, random(5) - 0.5), 0.2 + random(6) * 3, random(7) - 0.5, random(8) - 0.5);
    assert.deepEqual(clamp(zoom), zoom);
    assert.ok(Math.abs(zoom.x) <= (zoom.scale - 1) / 2 + 1e-9 && zoom.scale >= 1 && zoom.scale <= MOST);
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { duration } from "../src/pure/latency";

test("durations have as many digits as say something", () => {
  assert.deepEqual([0.314, 4.24, 180.4, 12_500, null].map(duration), ["0.31 ms", "4.2 ms", "180 ms", "12.5 s", "–"]);
});

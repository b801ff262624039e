/** How many frames a camera has under way. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type CameraCommand, Publication } from "../dist/core/publication.js";

test("a slow uplink has one frame under way, a quick one the whole window", () => {
  const commands: CameraCommand[] = [];
  const wire = { requestId: () => "r1", pingEvery: undefined };
  const wishes = { streamId: "cam-1", info: undefined, window: 3, alerts: false };
  const camera = new Publication(wishes, wire, () => 0.5, (command) => commands.push(command));
  camera.onReady(0);
  camera.onMessage({ type: "success", message: "", event: "registered", streamId: "cam-1", requestId: "r1", timestamp: 0 }, 0);
  const fill = (now: number): number => {
    let sent = 0;
    for (; camera.room(now, 0); sent += 1) camera.onSent(now + sent, now);
    return sent;
  };
  const taken = (timestamp: number, now: number): void =>
    camera.onMessage({ type: "ack", streamId: "cam-1", frameId: 1, timestamp }, now);

  assert.equal(fill(1_000), 1, "nothing is known yet");
  taken(1_000, 1_100);
  assert.equal(fill(2_000), 3);
  taken(2_000, 2_700);
  assert.equal(fill(2_700), 0, "two are under way still");
  taken(2_002, 3_400);
  assert.equal(fill(4_000), 1);
  taken(4_000, 4_500);
  assert.equal(fill(5_000), 1, "not slow, but not quick either");
  taken(5_000, 5_100);
  assert.equal(fill(6_000), 3);
  const told = commands.filter((each) => each.do === "room").flatMap((each) => each.taken ?? []);
  assert.deepEqual(told, [1_000, 2_000, 2_002, 4_000, 5_000]);
});

test("an acknowledgement of no known frame counts for the oldest", () => {
  const camera = new Publication({ streamId: "a", info: undefined, window: 2, alerts: false }, { requestId: () => "r1", pingEvery: undefined }, () => 0, () => undefined);
  camera.onReady(0);
  camera.onMessage({ type: "success", message: "", event: "registered", streamId: "a", requestId: "r1", timestamp: 0 }, 0);
  camera.onSent(10, 0);
  camera.onSent(20, 0);
  assert.equal(camera.room(1, 0), false);
  camera.onMessage({ type: "ack", streamId: "a", frameId: 1, timestamp: 99 }, 1);
  assert.equal(camera.room(1, 0), true);
  camera.onMessage({ type: "ack", streamId: "a", frameId: 1, timestamp: 20 }, 1);
  camera.onSent(30, 1);
  assert.equal(camera.room(1, 0), true);
});

/** Faults of apps, servers and networks that a client has to stand. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { WatchoutError } from "../dist/index.js";
import { Stage } from "./stage.js";

test("each socket has a ticket of its own", async () => {
  let count = 0;
  const stage = new Stage({ token: undefined, ticket: async () => `ticket${++count}` });
  stage.watchout.view("s");
  stage.watchout.camera();
  await stage.run();
  const tickets = stage.network.sockets.map((each) => new URL(each.url).searchParams.get("ticket"));
  assert.deepEqual(tickets.sort(), ["ticket1", "ticket2"]);
  await stage.close();
});

test("connect() after a sign-in also helps views that are opened later", async () => {
  let token: string | null = null;
  const stage = new Stage({ token: async () => token });
  const view = stage.watchout.view("s");
  await stage.run();
  assert.equal(stage.watchout.state, "closed");
  view.close();
  await stage.run();
  token = "t";
  stage.watchout.connect();
  await stage.run();
  assert.equal(stage.watchout.state, "idle");
  const later = stage.watchout.view("s");
  await stage.run();
  assert.equal(later.error, undefined);
  assert.equal(later.status, "streaming");
  await stage.close();
});

test("a client that is closed in a listener asks for no token and opens no socket that stays", async () => {
  let asked = 0;
  const stage = new Stage({ token: async () => `t${++asked}` });
  stage.watchout.on("state", ({ state }) => {
    if (state === "connecting") stage.watchout.close();
  });
  stage.watchout.view("s");
  await stage.run();
  assert.equal(asked, 0);
  await stage.close();
});

test("an alert that is no JSON, or too long, is refused at once and harms nothing", async () => {
  const stage = new Stage();
  const [camera, socket] = await stage.camera();
  const circle: Record<string, unknown> = {};
  circle["self"] = circle;
  await assert.rejects(camera.alert("low", "m", { metadata: circle }), { code: "INVALID_MESSAGE" });
  await assert.rejects(camera.alert("low", "m", { metadata: { big: 10n } }), { code: "INVALID_MESSAGE" });
  await assert.rejects(camera.alert("low", "m", { metadata: { long: "x".repeat(100_000) } }), { code: "INVALID_MESSAGE" });
  assert.deepEqual(stage.sent("alert", socket), []);
  assert.throws(() => stage.watchout.camera({ info: circle }), TypeError);
  await stage.close();
});

test("a picture that no reader can take is acknowledged at once", async () => {
  const stage = new Stage();
  const view = stage.watchout.view("s", { frames: true });
  await stage.run();
  for (const id of [1, 2, 3]) stage.frame("s", id);
  assert.equal(view.lastFrame?.frameId, 3);
  assert.deepEqual(stage.sent("ack").map((each) => each.frameId), [1, 2, 3]);
  await stage.close();
});

test("a server that does not answer to unsubscribe is not asked again and again", async () => {
  const stage = new Stage();
  const keep = stage.watchout.view("keep");
  const view = stage.watchout.view("s");
  await stage.run();
  const socket = stage.network.last();
  const answer = stage.answer;
  stage.answer = () => {
    for (const each of [...socket.sent] as any[]) if (each.type === "ping") { socket.sent.splice(socket.sent.indexOf(each), 1); socket.emit({ type: "pong", timestamp: stage.clock.wall() }); }
  };
  view.close();
  await stage.run(45_000, 500);
  assert.equal(stage.sent("unsubscribe").length, 1);
  stage.answer = answer;
  const again = stage.watchout.view("s");
  await stage.run();
  assert.equal(again.status, "streaming");
  assert.equal(keep.status, "streaming");
  await stage.close();
});

test("times of the server that are none are not passed on", async () => {
  const stage = new Stage({ lingerMs: 1e9 });
  const view = stage.watchout.view("s");
  await stage.run();
  stage.network.last().emit({ type: "ping" });
  stage.network.last().end(1006);
  await stage.run(5_000);
  const [again] = stage.sent("subscribe");
  assert.ok(Number.isInteger(again.alertsSince), String(again.alertsSince));
  view.close();
  await stage.close();
});

test("the reason of a lost connection is not an error of long ago", async () => {
  const stage = new Stage();
  stage.watchout.view("s");
  await stage.run();
  const socket = stage.network.last();
  socket.emit({ type: "error", code: "RATE_LIMITED", message: "slower", timestamp: stage.clock.wall() });
  await stage.run(20_000);
  socket.end(1006);
  await stage.clock.advance(0);
  assert.equal(stage.watchout.stateEvent.reason?.code, "CONNECTION_LOST");
  await stage.close();
});

test("closing twice is told once", async () => {
  const stage = new Stage();
  const [camera] = await stage.camera();
  const told: string[] = [];
  camera.on("state", ({ state }) => told.push(state));
  camera.close();
  camera.close();
  assert.deepEqual(told, ["closed"]);
  await stage.close();
});

test("a picture over the server's limit is not sent again and again", async () => {
  const stage = new Stage();
  const [camera] = await stage.camera();
  const reasons: (string | undefined)[] = [];
  camera.on("state", ({ state, reason }) => state === "waiting" && reasons.push(reason?.code));
  let sent = 0;
  for (let turn = 0; turn < 60; turn++) {
    await stage.run(1000, 500);
    const socket = stage.network.last();
    if (camera.send(new Uint8Array(5_000))) {
      sent++;
      socket.end(1009, "message too big");
    }
  }
  assert.ok(sent <= 1, `${sent} times`);
  assert.deepEqual(reasons, ["CLOSED_1009"]);
  await stage.run(1000);
  assert.ok(camera.send(new Uint8Array(100)));
  await stage.close();
});

test("an answer over HTTP that is not of this gateway is an error that says so", async () => {
  const page = async (): Promise<Response> => new Response("<html>", { status: 200 });
  const stage = new Stage({ fetch: page as typeof fetch });
  await assert.rejects(stage.watchout.streams(), (error: WatchoutError) => error instanceof WatchoutError);
  await stage.close();
});

test("an app that is shown again and again does not keep a dead connection", async () => {
  let report: (event: "wake") => void = () => undefined;
  const stage = new Stage({ platform: (each) => ((report = each), () => undefined) });
  stage.watchout.view("s");
  await stage.run(1000);
  const reasons: unknown[] = [];
  stage.watchout.on("state", ({ reason }) => reason && reasons.push(reason.code));
  for (let turn = 0; turn < 4; turn++) {
    report("wake");
    await stage.clock.advance(2000);
  }
  assert.deepEqual(reasons, ["NETWORK_SILENT"]);
  await stage.close();
});

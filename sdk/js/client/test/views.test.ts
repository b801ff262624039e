import assert from "node:assert/strict";
import { test } from "node:test";
import { Watchout, WatchoutError } from "../dist/index.js";
import { Stage, drain } from "./stage.js";

test("a hundred mounts and unmounts are one socket and one subscription", async () => {
  const stage = new Stage();
  for (let count = 0; count < 100; count++) stage.watchout.view("cam-1").close();
  const view = stage.watchout.view("cam-1");
  await stage.run(1000);
  assert.equal(stage.network.sockets.length, 1);
  assert.equal(stage.sent("subscribe").length, 1);
  assert.equal(stage.sent("unsubscribe").length, 0);
  view.close();
  stage.watchout.view("cam-1");
  await stage.run(1000);
  assert.equal(stage.sent("subscribe").length, 1, "closed and opened again at once changes nothing");
  await stage.close();
});

test("mounts and unmounts of separate tasks keep the socket", async () => {
  const stage = new Stage();
  for (let count = 0; count < 100; count++) {
    const view = stage.watchout.view("cam-1");
    await stage.run(10);
    view.close();
    await stage.run(10);
  }
  assert.equal(stage.network.sockets.length, 1);
  await stage.run(6000);
  assert.equal(stage.network.open.length, 0, "without a view the socket goes after a while");
  assert.equal(stage.watchout.state, "idle");
  assert.equal(stage.clock.pending, 0);
  await stage.close();
});

test("two views of a stream share one subscription, each with its own rate", async () => {
  const stage = new Stage();
  const slow = stage.watchout.view("cam-1", { maxFps: 2, window: 3, alerts: false });
  const fast = stage.watchout.view("cam-1", { maxFps: 10, window: 5, alerts: false });
  const slowFrames = slow.frames();
  const fastFrames = fast.frames();
  await stage.run();
  const [asked] = stage.sent("subscribe").slice(-1);
  assert.equal(asked.maxFps, 10);
  assert.equal(asked.window, 3);
  assert.deepEqual(asked.consumes, ["video-frame"]);
  const seen = { slow: 0, fast: 0 };
  void (async () => {
    for await (const _ of slowFrames) seen.slow++;
  })();
  void (async () => {
    for await (const _ of fastFrames) seen.fast++;
  })();
  for (let id = 1; id <= 30; id++) {
    stage.frame("cam-1", id);
    await stage.run(100);
  }
  assert.equal(seen.fast, 30);
  assert.ok(seen.slow >= 6 && seen.slow <= 7, `2 frames a second of 3 s, not ${seen.slow}`);
  fast.close();
  await stage.run();
  assert.equal(stage.sent("subscribe").at(-1).maxFps, 2, "what the other one wants is left");
  await stage.close();
});

test("json wins over binary, all frames over a rate", async () => {
  const stage = new Stage();
  stage.watchout.view("cam-1", { format: "json", maxFps: 5 }).frames();
  stage.watchout.view("cam-1").frames();
  await stage.run();
  const [asked] = stage.sent("subscribe").slice(-1);
  assert.equal(asked.format, "json");
  assert.equal(asked.maxFps, undefined);
  await stage.close();
});

test("a frame is acknowledged when the first view is done with it, and never twice", async () => {
  const stage = new Stage();
  const one = stage.watchout.view("cam-1", { window: 2 }).frames();
  const two = stage.watchout.view("cam-1", { window: 2 }).frames();
  await stage.run();
  stage.frame("cam-1", 1);
  await one.next();
  await two.next();
  assert.equal(stage.sent("ack").length, 0);
  void one.next();
  assert.deepEqual(stage.sent("ack").map((each) => each.frameId), [1]);
  void two.next();
  assert.equal(stage.sent("ack").length, 1);
  await stage.close();
});

test("a loop that is left acknowledges what it took, and frames are not wanted any more", async () => {
  const stage = new Stage();
  const view = stage.watchout.view("cam-1", { window: 2 });
  const loop = (async () => {
    for await (const frame of view.frames()) if (frame.frameId === 2) break;
  })();
  await stage.run();
  stage.frame("cam-1", 1);
  await stage.run();
  stage.frame("cam-1", 2);
  await loop;
  await stage.run();
  assert.deepEqual(stage.sent("ack").map((each) => each.frameId), [1, 2]);
  assert.deepEqual(stage.sent("subscribe").at(-1).consumes, ["alert"]);
  await stage.close();
});

test("the newest frame waits, older ones give way and are counted", async () => {
  const stage = new Stage();
  const view = stage.watchout.view("cam-1");
  const frames = view.frames();
  await stage.run();
  for (let id = 1; id <= 5; id++) stage.frame("cam-1", id);
  assert.equal((await frames.next()).value.frameId, 5);
  assert.equal(view.received, 5);
  assert.equal(view.replaced, 4);
  assert.equal(view.lastFrame?.frameId, 5);
  await stage.close();
});

test("frames are wanted while somebody takes them", async () => {
  const stage = new Stage();
  const view = stage.watchout.view("cam-1");
  await stage.run();
  assert.deepEqual(stage.sent("subscribe").at(-1).consumes, ["alert"]);
  const frames = view.frames();
  await stage.run();
  assert.deepEqual(stage.sent("subscribe").at(-1).consumes, ["video-frame", "alert"]);
  view.pause();
  await stage.run();
  assert.deepEqual(stage.sent("subscribe").at(-1).consumes, ["alert"]);
  view.resume();
  await stage.run();
  assert.deepEqual(stage.sent("subscribe").at(-1).consumes, ["video-frame", "alert"]);
  await frames.return?.();
  await stage.run();
  assert.deepEqual(stage.sent("subscribe").at(-1).consumes, ["alert"]);
  await stage.close();
});

test("a second view with alertsSince gets the old alerts, the first one does not get them again", async () => {
  const stage = new Stage();
  stage.pongAfter = undefined; // the end of the replay is not known: what it filters, it filters until then
  const first = stage.watchout.view("cam-1").alerts();
  await stage.run();
  stage.alert("cam-1", "live-1");
  await stage.run(5000);
  const old = stage.clock.wall() - 3_600_000;
  const second = stage.watchout.view("cam-1", { alertsSince: old }).alerts();
  await stage.run();
  assert.equal(stage.sent("subscribe").at(-1).alertsSince, old);
  stage.alert("cam-1", "old-1", old + 1);
  stage.alert("cam-1", "live-1");
  stage.alert("cam-1", "live-2");
  assert.deepEqual((await drain(first)).map((each) => each.id), ["live-1", "live-2"]);
  assert.deepEqual((await drain(second)).map((each) => each.id), ["old-1", "live-1", "live-2"]);
  await stage.close();
});

test("after a break each view gets what it missed, once", async () => {
  const stage = new Stage();
  const first = stage.watchout.view("cam-1").alerts();
  await stage.run();
  stage.alert("cam-1", "a1");
  await stage.run(20_000);
  const from = stage.clock.wall();
  stage.network.last().end(1006);
  await stage.run(1000);
  const asked = stage.sent("subscribe").at(-1);
  assert.ok(asked.alertsSince <= from && asked.alertsSince >= from - 12_000, `since shortly before the break, not ${from - asked.alertsSince} ms before`);
  stage.alert("cam-1", "a1");
  stage.alert("cam-1", "a2", 5); // a camera whose clock is wrong
  assert.deepEqual((await drain(first)).map((each) => each.id), ["a1", "a2"]);
  await stage.close();
});

test("alerts wait for the first reader, and tell when too many waited", async () => {
  const stage = new Stage();
  const view = stage.watchout.view("cam-1");
  await stage.run();
  for (let count = 1; count <= 1003; count++) stage.alert("cam-1", `a${count}`);
  const got = await drain(view.alerts());
  assert.equal(got.length, 1000);
  assert.equal(got[0]?.id, "a4");
  assert.equal(got[0]?.recovered, false);
  assert.ok(got.slice(1).every((each) => each.recovered));
  await stage.close();
});

test("loops end with close(), and throw when the view cannot go on", async () => {
  const stage = new Stage();
  const view = stage.watchout.view("cam-1");
  const frames = view.frames().next();
  const alerts = view.alerts().next();
  await stage.run();
  view.close();
  assert.equal((await frames).done, true);
  assert.equal((await alerts).done, true);
  const other = stage.watchout.view("cam-2");
  const lost = other.frames().next();
  await stage.run();
  stage.network.last().end(4777, "because");
  await assert.rejects(lost, (error) => error instanceof WatchoutError && error.closeCode === 4777 && !error.retryable);
  await assert.rejects(other.alerts().next(), WatchoutError, "and so does one that begins later");
  stage.watchout.connect();
  await stage.run();
  assert.equal(other.status, "streaming");
  const again = other.frames().next();
  await stage.run();
  stage.frame("cam-2", 1);
  assert.equal((await again).value.frameId, 1);
  await stage.close();
});

test("more subscriptions than the server answers at once are asked for in turn", async () => {
  const stage = new Stage();
  for (let count = 0; count < 100; count++) stage.watchout.view(`cam-${count}`);
  await stage.clock.advance(0);
  const socket = stage.network.last();
  socket.accept();
  socket.emit({ type: "success", event: "authenticated", message: "", timestamp: stage.clock.wall() });
  await stage.clock.advance(0);
  assert.equal(stage.sent("subscribe").length, 16);
  await stage.run(1000);
  assert.equal(stage.sent("subscribe").length, 100);
  await stage.close();
});

test("a request without an answer is sent again", async () => {
  const stage = new Stage();
  stage.watchout.view("cam-1");
  await stage.clock.advance(0);
  const socket = stage.network.last();
  socket.accept();
  socket.emit({ type: "success", event: "authenticated", message: "", timestamp: stage.clock.wall() });
  for (let count = 0; count < 3; count++) {
    await stage.clock.advance(4000);
    socket.emit({ type: "ping", timestamp: stage.clock.wall() });
  }
  assert.equal(stage.sent("subscribe").length, 2);
  await stage.close();
});

test("the window grows with the round trip, and shrinks when frames queue on the way", async () => {
  const stage = new Stage();
  stage.pongAfter = 200;
  void (async () => {
    for await (const _ of stage.watchout.view("cam-1").frames());
  })();
  let id = 0;
  const watch = async (seconds: number): Promise<void> => {
    for (let left = seconds * 20; left > 0; left--) {
      stage.frame("cam-1", ++id);
      await stage.run(50);
    }
  };
  await stage.run(300);
  assert.equal(stage.sent("subscribe").at(-1).window, 2);
  await watch(25);
  assert.equal(stage.sent("subscribe").at(-1).window, 5, "20 frames a second over 0.2 s, and one more");
  stage.pongAfter = 2000;
  await watch(35);
  assert.equal(stage.sent("subscribe").at(-1).window, 2);
  await stage.close();
});

test("options that no server takes are refused at once", async () => {
  const stage = new Stage();
  for (const options of [{ maxFps: 0 }, { maxFps: Number.NaN }, { window: 0 }, { window: 1.5 }, { alertsSince: -1 }])
    assert.throws(() => stage.watchout.view("cam-1", options), RangeError);
  for (const id of ["", "a b", "ü", "x".repeat(129)]) assert.throws(() => stage.watchout.view(id), RangeError);
  assert.throws(() => stage.watchout.camera({ window: 33 }), RangeError);
  await stage.run(1000);
  assert.equal(stage.network.sockets.length, 0);
  await stage.close();
  assert.throws(() => stage.watchout.view("cam-1"), WatchoutError);
});

test("a listener that throws does not keep events from the others", async () => {
  const stage = new Stage();
  const reported: unknown[] = [];
  const globals = globalThis as { reportError?: (error: unknown) => void };
  const before = globals.reportError;
  globals.reportError = (error) => reported.push(error);
  const view = stage.watchout.view("cam-1");
  const seen: string[] = [];
  view.on("alert", () => {
    throw new Error("a fault of the app");
  });
  const off = view.on("alert", (alert) => seen.push(alert.id));
  await stage.run();
  stage.alert("cam-1", "a1");
  off();
  stage.alert("cam-1", "a2");
  if (before === undefined) delete globals.reportError;
  else globals.reportError = before;
  assert.deepEqual(seen, ["a1"]);
  assert.equal(reported.length, 2);
  await stage.close();
});

test("acknowledgements of alerts go out, and come back to every view", async () => {
  const stage = new Stage();
  const view = stage.watchout.view("cam-1");
  const seen: string[] = [];
  view.on("acknowledged", (event) => seen.push(`${event.alertId} ${event.userId}`));
  await stage.run();
  view.acknowledge("a1", "mine");
  const [sent] = stage.sent("acknowledge");
  assert.equal(sent.note, "mine");
  stage.network.last().emit({ type: "alert-acknowledged", streamId: "cam-1", alertId: "a1", userId: "u", timestamp: 1 });
  assert.deepEqual(seen, ["a1 u"]);
  await stage.close();
});

test("what a camera says of itself is told when it is new, and when it is gone", async () => {
  const stage = new Stage();
  const view = stage.watchout.view("cam-1");
  await stage.run();
  const told: unknown[] = [];
  view.on("status", (status) => told.push([status, view.info?.["deviceName"]]));
  const status = (more: object): void => stage.network.last().emit({ type: "status", streamId: "cam-1", status: "streaming", timestamp: 1, ...more });
  status({ info: { deviceName: "door" } });
  status({});
  status({ info: { deviceName: "gate" } });
  status({ info: null });
  assert.deepEqual(told, [["streaming", "door"], ["streaming", "gate"], ["streaming", undefined]]);
  await stage.close();
});

test("arguments of a wrong kind are errors, not ignored", async () => {
  const stage = new Stage();
  const { watchout } = stage as any;
  assert.throws(() => new Watchout("http://host", "a-token" as any), { name: "TypeError", message: 'not options: "a-token"' });
  assert.throws(() => watchout.view("cam-1", "frames"), { name: "TypeError", message: 'not options: "frames"' });
  assert.throws(() => watchout.camera("cam-1"), { name: "TypeError", message: 'not options: "cam-1"' });
  assert.throws(() => watchout.camera({ streamId: 7 }), { name: "RangeError", message: /^not a stream id .*: 7$/ });
  assert.throws(() => watchout.view(undefined), { name: "RangeError", message: /^not a stream id .*: undefined$/ });
  await stage.close();
});

test("the address names the stream when all views are of one", async () => {
  const stage = new Stage();
  const views = [stage.watchout.view("cam-1"), stage.watchout.view("cam-1"), stage.watchout.view("cam-2")];
  await stage.run();
  assert.equal(new URL(stage.network.last().url).search, "");
  views[2]?.close();
  await stage.run();
  stage.network.last().end(1006);
  await stage.run(2000);
  assert.equal(new URL(stage.network.last().url).search, "?streamId=cam-1");
  await stage.close();
});

for (const path of ["/streams/subscribe", "/streams/register/", "/streams/subscribe?x=1"])
  test(`an address that ends with ${path} is the gateway's`, async () => {
    const stage = new Stage();
    const { clock, network } = stage;
    const watchout = new Watchout(`wss://host/prefix${path}`, { token: "t", WebSocket: network.WebSocket, clock });
    watchout.view("cam-1");
    await stage.run(1000);
    assert.equal(network.last().url, "wss://host/prefix/streams/subscribe?streamId=cam-1");
    watchout.close();
    await stage.close();
  });

import assert from "node:assert/strict";
import { test } from "node:test";
import { Watchout, WatchoutError } from "../dist/index.js";
import { Stage, jwt } from "./stage.js";

test("back-off is full jitter after the cap, and starts anew only after a stable time", async () => {
  for (const random of [0, 0.25, 0.999]) {
    const stage = new Stage({ random: () => random });
    stage.watchout.view("cam-1");
    await stage.clock.advance(0);
    const delays: number[] = [];
    stage.watchout.on("state", (event) => event.state === "waiting" && delays.push(event.retryInMs ?? -1));
    for (let count = 0; count < 8; count++) {
      stage.network.last().end(1006);
      await stage.clock.advance(delays.at(-1) ?? 0);
    }
    assert.deepEqual(delays, [1, 2, 4, 8, 16, 30, 30, 30].map((seconds) => seconds * 1000 * random));
    await stage.close();
  }
});

test("a connection that lasts a moment does not start the back-off anew", async () => {
  const stage = new Stage();
  stage.watchout.view("cam-1");
  const delays: number[] = [];
  stage.watchout.on("state", (event) => event.state === "waiting" && delays.push(event.retryInMs ?? -1));
  for (const online of [9000, 9000, 9000, 10_100, 9000]) {
    await stage.run(online + (delays.at(-1) ?? 0));
    stage.network.last().end(1012);
    await stage.clock.advance(0);
  }
  assert.deepEqual(delays, [500, 1000, 2000, 500, 1000]);
  await stage.close();
});

test("where other gateways take over it is back at once, but not again and again", async () => {
  const stage = new Stage({ random: () => 0.999 });
  stage.watchout.view("cam-1");
  await stage.clock.advance(0);
  const delays: number[] = [];
  stage.watchout.on("state", (event) => event.state === "waiting" && delays.push(event.retryInMs ?? -1));
  for (let count = 0; count < 9; count++) {
    await stage.run(100 + (delays.at(-1) ?? 0));
    stage.network.last().end(1012, "restart, reconnect now");
    await stage.clock.advance(0);
  }
  assert.deepEqual(delays, [...Array(8).fill(100), 30_000].map((ms) => ms * 0.999));
  await stage.close();
});

test("one token is asked for at a time, for all sockets, and renewed before its end on all of them", async () => {
  let calls = 0;
  let under = 0;
  const whys: string[] = [];
  const stage: Stage = new Stage({
    token: async (why) => {
      whys.push(why);
      assert.equal(++under, 1, "one call at a time");
      await Promise.resolve();
      under--;
      return jwt(stage.clock, 600, String(++calls));
    },
  });
  stage.watchout.view("cam-1");
  stage.watchout.camera({ streamId: "cam-2" });
  stage.watchout.camera({ streamId: "cam-3" });
  await stage.run(30_000, 1000);
  assert.deepEqual(whys, ["connect"]);
  await stage.run(530_000, 1000);
  assert.deepEqual(whys, ["connect", "expiring"]);
  for (const socket of stage.network.sockets) {
    const [first, second] = stage.sent("auth", socket);
    assert.equal(first.renew, undefined);
    assert.equal(second.renew, true);
    assert.notEqual(second.token, first.token);
  }
  assert.equal(stage.network.sockets.length, 3, "no reconnection");
  await stage.close();
});

test("a renewal that fails is tried again, not in a storm, and the socket stays", async () => {
  let calls = 0;
  const stage: Stage = new Stage({
    token: () => {
      if (++calls > 1) throw new Error("no network");
      return jwt(stage.clock, 300);
    },
  });
  const errors: string[] = [];
  stage.watchout.on("error", (error) => errors.push(error.code));
  stage.watchout.view("cam-1");
  await stage.run(298_000, 1000);
  assert.ok(calls > 3 && calls < 25, `${calls} calls in the last minute`);
  assert.ok(errors.every((code) => code === "TOKEN_UNAVAILABLE"));
  assert.equal(stage.network.sockets.length, 1);
  await stage.close();
});

test("a token callback that never answers is given up, and the next one is asked", async () => {
  let aborted = 0;
  let calls = 0;
  const stage = new Stage({
    token: (_, { signal }) => {
      calls++;
      signal.addEventListener("abort", () => aborted++);
      return new Promise(() => undefined);
    },
  });
  stage.watchout.view("cam-1");
  await stage.run(29_000, 1000);
  assert.equal(calls, 1);
  assert.equal(stage.watchout.state, "connecting");
  await stage.run(3000, 1000);
  assert.equal(aborted, 1);
  assert.equal(calls, 2);
  await stage.close();
  assert.equal(aborted, 2, "close() gives up the call under way");
});

test("a callback may say that it is final", async () => {
  const stage = new Stage({ token: () => Promise.reject(new WatchoutError("BANNED", "no more")) });
  stage.watchout.view("cam-1");
  await stage.run(100_000, 1000);
  assert.equal(stage.watchout.state, "closed");
  assert.equal(stage.watchout.stateEvent.reason?.code, "BANNED");
  await stage.close();
});

test("a dead network is noticed within the silence limit", async () => {
  const stage = new Stage({ silenceMs: 8000 });
  stage.watchout.view("cam-1");
  await stage.run(20_000);
  assert.equal(stage.watchout.state, "online", "pongs are a sign of life");
  stage.pongAfter = undefined;
  const from = stage.clock.now();
  let at = 0;
  stage.watchout.on("state", (event) => {
    if (event.state === "waiting") at ||= stage.clock.now();
  });
  await stage.run(14_000, 100);
  assert.ok(at > 0 && at - from <= 8100, `noticed after ${at - from} ms`);
  await stage.close();
});

test("a machine that slept asks once whether the connection stands", async () => {
  const stage = new Stage();
  stage.watchout.view("cam-1");
  await stage.run(1000);
  const [socket] = stage.network.sockets;
  await stage.clock.jump(3_600_000);
  assert.equal(stage.watchout.state, "online");
  await stage.run(1000);
  assert.equal(stage.network.sockets.length, 1, "it answered: it stands");
  stage.pongAfter = undefined;
  await stage.clock.jump(3_600_000);
  await stage.run(6000);
  assert.equal(socket?.readyState, 3, "it did not: another one");
  await stage.close();
});

test("timers that are always late, as in a hidden tab, find a dead network too", async () => {
  const stage = new Stage();
  stage.watchout.view("cam-1");
  await stage.run(1000);
  stage.pongAfter = undefined;
  for (let count = 0; count < 3; count++) await stage.clock.jump(60_000);
  assert.notEqual(stage.watchout.state, "online");
  await stage.close();
});

test("reports of the platform: the network is back, the app is awake", async () => {
  let report: (event: "online" | "offline" | "wake") => void = () => undefined;
  let listening = 0;
  const stage = new Stage({
    platform: (tell) => {
      listening++;
      report = tell;
      return () => listening--;
    },
  });
  stage.watchout.view("cam-1");
  await stage.clock.advance(0);
  assert.equal(listening, 1);
  for (let count = 0; count < 7; count++) {
    stage.network.last().end(1006);
    await stage.clock.advance(20_000);
  }
  stage.network.last().end(1006);
  const before = stage.network.sockets.length;
  report("online");
  await stage.run(600);
  assert.equal(stage.network.sockets.length, before + 1, "at once, not after 15 s");
  stage.pongAfter = undefined;
  report("offline");
  await stage.run(5100);
  assert.equal(stage.watchout.stateEvent.reason?.code, "NETWORK_SILENT");
  await stage.close();
  assert.equal(listening, 0);
});

test("a ticket stands in the URL, once; the next connection has another", async () => {
  let count = 0;
  const stage = new Stage({ token: undefined, ticket: () => `ticket ${++count}` });
  stage.watchout.view("cam-1");
  await stage.run();
  assert.equal(stage.network.last().url, "wss://gateway.example/base/streams/subscribe?streamId=cam-1&ticket=ticket%201");
  assert.equal(stage.sent("auth").length, 0);
  assert.equal(stage.watchout.state, "online");
  stage.network.last().end(1006);
  await stage.run(1000);
  assert.match(stage.network.last().url, /ticket%202$/);
  await stage.close();
});

test("a ticket that is a text cannot connect twice", async () => {
  const stage = new Stage({ token: undefined, ticket: "once" });
  stage.watchout.view("cam-1");
  await stage.run();
  stage.network.last().end(1006);
  await stage.run(60_000, 1000);
  assert.equal(stage.network.sockets.length, 1);
  assert.equal(stage.watchout.stateEvent.reason?.code, "TICKET_USED");
  await stage.close();
});

test("the state is that of the worst socket; one that was taken over is not the client's state", async () => {
  const stage = new Stage();
  stage.watchout.view("cam-1");
  const [camera, socket] = await stage.camera({ streamId: "cam-2" });
  assert.equal(stage.watchout.state, "online");
  socket.end(1012);
  assert.equal(stage.watchout.state, "waiting");
  await stage.run(1000);
  assert.equal(stage.watchout.state, "online");
  stage.network.last("/base/streams/register").end(4501);
  assert.equal(camera.state.state, "closed");
  assert.equal(stage.watchout.state, "online");
  await stage.close();
});

test("a socket that cannot be made is final and says why", async () => {
  const stage = new Stage({
    WebSocket: class {
      constructor() {
        throw new SyntaxError("mixed content");
      }
    } as never,
  });
  stage.watchout.view("cam-1");
  await stage.run(60_000, 1000);
  assert.match(stage.watchout.stateEvent.reason?.message ?? "", /mixed content/);
  await stage.close();
});

test("addresses: http and ws, with a path; others are refused", () => {
  for (const url of ["ftp://host", "host:3000", "https://", "", "javascript:alert(1)"]) assert.throws(() => new Watchout(url), TypeError, url);
  for (const url of ["http://host", "wss://host/path/", "https://host?x#y"]) new Watchout(url).close();
});

test("text of the server that is no message changes nothing", async () => {
  const stage = new Stage();
  stage.watchout.view("cam-1");
  await stage.run();
  const socket = stage.network.last();
  for (const data of ["", "null", "[]", "7", "{", '{"type":7}', '{"type":"status"}', '{"type":"alert"}', '{"type":"success"}', '{"type":"error"}', '{"type":"video-frame","streamId":"cam-1","frameId":1,"data":"%%%"}'])
    socket.onmessage?.({ data });
  for (const size of [0, 1, 17, 18, 40]) socket.onmessage?.({ data: new Uint8Array(size).fill(0x57).buffer });
  socket.onmessage?.({ data: { a: "Blob" } });
  await stage.run(1000);
  assert.equal(stage.watchout.state, "online");
  await stage.close();
});

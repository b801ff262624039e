import assert from "node:assert/strict";
import { test } from "node:test";
import { WatchoutError, codecOf, decodeFrame, encodeFrame, reactNativePlatform } from "../dist/index.js";
import { Stage } from "./stage.js";

const PICTURE = Uint8Array.of(0xff, 0xd8, 0xff, 1, 2, 3);

test("ready() waits for room, for demand, and for its rate", async () => {
  const stage = new Stage();
  const [camera, socket] = await stage.camera({ streamId: "cam-1" });
  const demand = (fps: number): void => socket.emit({ type: "demand", streamId: "cam-1", viewers: 1, fps, timestamp: 1 });
  const state = { ready: false };
  const wait = async (): Promise<void> => {
    state.ready = false;
    if (await camera.ready()) state.ready = true;
  };
  demand(0);
  void wait();
  await stage.run(5000);
  assert.equal(state.ready, false, "nobody watches");
  demand(10);
  await stage.run();
  assert.equal(state.ready, true);
  assert.equal(camera.send(PICTURE, { timestamp: 1 }), true);
  assert.equal(camera.room, false, "of this uplink nothing is known yet");
  socket.emit({ type: "ack", streamId: "cam-1", frameId: 1, timestamp: 1 });
  void wait();
  await stage.run(50, 10);
  assert.equal(state.ready, false, "10 a second");
  await stage.run(60, 10);
  assert.equal(state.ready, true);
  camera.send(PICTURE, { timestamp: 2 });
  camera.send(PICTURE, { timestamp: 3 });
  void wait();
  await stage.run(300);
  assert.equal(state.ready, false, "the window is full");
  socket.emit({ type: "ack", streamId: "cam-1", frameId: 2, timestamp: 2 });
  await stage.run();
  assert.equal(state.ready, true);
  const last = camera.ready();
  camera.send(PICTURE, { timestamp: 3 });
  const ended = camera.ready();
  camera.close();
  assert.equal(await last, true);
  assert.equal(await ended, false);
  await stage.close();
});

test("the address names the stream, as it is, also the one that the server made", async () => {
  const stage = new Stage();
  const [named, socket] = await stage.camera({ streamId: "door:1.a_B-2" });
  assert.equal(socket.url, "wss://gateway.example/base/streams/register?streamId=door:1.a_B-2");
  named.close();
  const [camera, first] = await stage.camera();
  assert.equal(first.url, "wss://gateway.example/base/streams/register");
  assert.ok(camera.streamId);
  first.end(1006);
  await stage.run(2000);
  assert.equal(stage.network.last().url, `wss://gateway.example/base/streams/register?streamId=${camera.streamId}`);
  await stage.close();
});

test("a loop over ready() sends at the demanded rate", async () => {
  const stage = new Stage();
  const [camera, socket] = await stage.camera({ streamId: "cam-1", window: 4 });
  socket.emit({ type: "demand", streamId: "cam-1", viewers: 1, fps: 5, timestamp: 1 });
  let sent = 0;
  const loop = (async () => {
    while (await camera.ready()) {
      const timestamp = ++sent;
      camera.send(PICTURE, { timestamp });
      stage.clock.timer(() => socket.emit({ type: "ack", streamId: "cam-1", frameId: timestamp, timestamp }), 30);
    }
  })();
  await stage.run(10_000);
  assert.ok(sent >= 48 && sent <= 52, `${sent} in 10 s`);
  camera.close();
  await loop;
  await stage.run(100);
  await stage.close();
});

test("a frame that is never acknowledged does not close the window for ever", async () => {
  const stage = new Stage();
  const [camera] = await stage.camera({ streamId: "cam-1", window: 1 });
  assert.equal(camera.send(PICTURE), true);
  assert.equal(camera.room, false);
  await stage.run(9000);
  assert.equal(camera.room, false);
  await stage.run(2000);
  assert.equal(camera.room, true);
  assert.equal(camera.send(PICTURE), true);
  assert.equal(camera.room, false);
  assert.deepEqual(camera.counts, { sent: 2, dropped: 0 });
  await stage.close();
});

test("frames with the same time are acknowledged together", async () => {
  const stage = new Stage();
  const [camera, socket] = await stage.camera({ streamId: "cam-1", window: 2 });
  camera.send(PICTURE, { timestamp: 7.9 });
  camera.send(PICTURE, { timestamp: 7.1 });
  assert.equal(camera.room, false);
  socket.emit({ type: "ack", streamId: "cam-1", frameId: 2, timestamp: 7 });
  assert.equal(camera.room, true);
  assert.equal(camera.send(PICTURE), true);
  assert.equal(camera.send(PICTURE), true);
  assert.equal(camera.room, false);
  await stage.close();
});

test("a server without acknowledgements: what waits in the socket decides", async () => {
  const stage = new Stage();
  const camera = stage.watchout.camera({ streamId: "cam-1" });
  await stage.clock.advance(0);
  const socket = stage.network.last() as unknown as { bufferedAmount?: number } & ReturnType<Stage["network"]["last"]>;
  socket.accept();
  socket.emit({ type: "success", event: "authenticated", message: "", timestamp: 1 });
  await stage.clock.advance(0);
  socket.emit({ type: "success", event: "registered", message: "", streamId: "cam-1", timestamp: 1 });
  for (let count = 0; count < 10; count++) assert.equal(camera.send(PICTURE), true);
  socket.bufferedAmount = 100_000;
  assert.equal(camera.send(PICTURE), false);
  socket.bufferedAmount = 0;
  assert.equal(camera.room, true);
  let looks = 0;
  const loop = (async () => {
    while (await camera.ready()) {
      looks++;
      camera.send(PICTURE);
    }
  })();
  await stage.clock.advance(2000);
  assert.ok(looks > 20 && looks <= 32, `paced, not as fast as it can: ${looks} in 2 s`);
  camera.close();
  await loop;
  await stage.close();
});

test("a socket that is closing takes no frame, and a loop waits", async () => {
  const stage = new Stage();
  const [camera, socket] = await stage.camera({ streamId: "cam-1" });
  socket.readyState = 2;
  assert.equal(camera.room, false);
  assert.equal(camera.send(PICTURE), false);
  let looks = 0;
  void (async () => {
    while (await camera.ready()) if (looks++ > 10) throw new Error("a loop that never rests");
  })();
  await stage.run(100);
  assert.equal(looks, 0);
  socket.readyState = 1;
  await stage.close();
});

test("React Native: no bufferedAmount, no URL that can be changed, base64 goes out as it is", async () => {
  const { URL, performance } = globalThis;
  let listener: (state: string) => void = () => undefined;
  let removed = false;
  const AppState = {
    addEventListener: (_: "change", heard: (state: string) => void) => {
      listener = heard;
      return { remove: () => (removed = true) };
    },
  };
  (globalThis as { URL: unknown }).URL = class {
    constructor() {
      throw new Error("URL.protocol is not implemented");
    }
  };
  try {
    const stage = new Stage({ platform: reactNativePlatform(AppState) });
    const camera = stage.watchout.camera({ streamId: "cam-1" });
    await stage.clock.advance(0);
    const socket = stage.network.sockets[0] as NonNullable<(typeof stage.network.sockets)[0]>;
    assert.equal(socket.url, "wss://gateway.example/base/streams/register?streamId=cam-1");
    assert.equal(socket.binaryType, "arraybuffer", "Blobs cannot be read there");
    await stage.run();
    assert.equal("bufferedAmount" in socket, false);
    assert.equal(camera.send("/9j/4A==", { timestamp: 5 }), true);
    assert.deepEqual(stage.sent("video-frame", socket), [{ type: "video-frame", streamId: "cam-1", data: "/9j/4A==", timestamp: 5 }]);
    socket.emit({ type: "ack", streamId: "cam-1", frameId: 1, timestamp: 5 });
    assert.equal(camera.send(PICTURE.buffer.slice(0), { timestamp: 6 }), true);
    assert.ok(socket.sent.at(-1) instanceof Uint8Array);
    assert.equal(camera.send(PICTURE), true);
    assert.equal(camera.send(PICTURE), false, "the window holds without bufferedAmount");
    stage.pongAfter = undefined;
    listener("background");
    listener("active");
    await stage.run(5100);
    assert.notEqual(camera.state.state, "online", "after the phone slept, a dead connection is found at once");
    await stage.close();
    assert.ok(removed);
  } finally {
    Object.assign(globalThis, { URL, performance });
  }
});

test("an alert is resolved when the server has it, and rejected when it is refused or the camera closed", async () => {
  const stage = new Stage();
  const [camera, socket] = await stage.camera({ streamId: "cam-1" });
  const told = camera.alert("high", "one", { id: "one", metadata: { a: 1 } });
  const [sent] = stage.sent("alert", socket);
  assert.deepEqual(sent.metadata, { a: 1 });
  socket.emit({ type: "success", event: "alert-accepted", message: "", alertId: "one", requestId: sent.requestId, timestamp: 1 });
  assert.equal(await told, "one");
  const refused = camera.alert("high", "two", { id: "two" });
  socket.emit({ type: "error", code: "UNAUTHORIZED", message: "no", requestId: stage.sent("alert", socket).at(-1).requestId, timestamp: 1 });
  await assert.rejects(refused, (error) => error instanceof WatchoutError && error.code === "UNAUTHORIZED");
  assert.equal(camera.state.state, "online", "one alert was refused, not the camera");
  const later = camera.alert("high", "three");
  camera.close();
  await assert.rejects(later, WatchoutError);
  await assert.rejects(camera.alert("high", "four"), WatchoutError);
  await stage.close();
});

test("alerts that wait are bounded", async () => {
  const stage = new Stage();
  const camera = stage.watchout.camera({ streamId: "cam-1" });
  const all = Array.from({ length: 101 }, (_, at) => camera.alert("low", `alert ${at}`));
  await assert.rejects(all[100] as Promise<string>, (error) => error instanceof WatchoutError && error.code === "RATE_LIMITED");
  await stage.run();
  assert.equal(stage.sent("alert").length, 100);
  assert.equal(new Set(stage.sent("alert").map((each) => each.id)).size, 100);
  await stage.close();
});

test("frames as bytes: header, time, codec", () => {
  for (const timestamp of [0, 1, 2 ** 32 - 1, 2 ** 32, 1_750_000_000_123, 2 ** 53 - 1]) {
    const frame = decodeFrame(encodeFrame(PICTURE, timestamp, "jpeg").buffer, 9);
    assert.deepEqual(frame, { streamId: "", frameId: 0, timestamp, receivedAt: 9, bytes: PICTURE, mime: "image/jpeg" });
  }
  assert.equal(codecOf(Uint8Array.of(0x89, 0x50, 0x4e, 0x47)), "png");
  assert.equal(codecOf(new TextEncoder().encode("RIFF....WEBPVP8 ")), "webp");
  assert.equal(codecOf(new Uint8Array(0)), "opaque");
  assert.equal(decodeFrame(new ArrayBuffer(3), 0), undefined);
});

test("what is no picture is an error of the caller, and nothing is sent", async () => {
  const stage = new Stage();
  const camera = stage.watchout.camera({ streamId: "cam-1" });
  await stage.run(1000);
  const socket = stage.network.last();
  const before = socket.sent.length;
  for (const each of [undefined, {}, new Blob(["picture"]), new Uint8Array(0), 7, ""])
    assert.throws(() => camera.send(each as any), { name: "TypeError", message: "not bytes or base64" });
  assert.equal(socket.sent.length, before);
  assert.equal(camera.send(Uint8Array.of(0)), true, "one byte is a picture, whatever it says");
  await stage.close();
});

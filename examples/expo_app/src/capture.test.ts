/** The capture loop against a fake network with the quirks of React Native. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Watchout } from "@watchout/client";
import { FakeClock, FakeNetwork, type FakeSocket } from "@watchout/client/testing";
import { capture } from "./capture.ts";

const JPEG = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBD";

/** A client whose camera captures; `pictures` are the numbers of the pictures that were taken. */
async function started(take = async () => JPEG) {
  const clock = new FakeClock();
  const network = new FakeNetwork();
  const client = new Watchout("http://watchout.test", {
    token: "secret", WebSocket: network.WebSocket, clock, platform: () => () => undefined,
  });
  const camera = client.camera({ streamId: "phone", window: 2 });
  const stopped = new AbortController();
  const errors: unknown[] = [];
  let taken = 0;
  const counted = async () => {
    taken++;
    return take();
  };
  const ended = capture(camera, counted, stopped.signal, (error) => errors.push(error));
  await clock.advance(0);
  const socket = network.last("/streams/register");
  socket.accept();
  await clock.advance(0);
  return { clock, client, camera, socket, stopped, errors, ended, taken: () => taken };
}

/** Answer what the client has sent: sign-in and registration. */
async function registered(socket: FakeSocket, clock: FakeClock): Promise<void> {
  for (const event of ["authenticated", "registered"] as const) {
    const request = socket.next();
    assert(!(request instanceof Uint8Array));
    socket.emit({
      type: "success", message: "", event, streamId: "phone", timestamp: clock.wall(),
      requestId: (request as { requestId?: string }).requestId,
    });
    await clock.advance(0);
  }
}

/** Numbers of frames that arrived at the server. */
const frames = (socket: FakeSocket) => socket.sent.filter((each) => !(each instanceof Uint8Array) && each.type === "video-frame");

test("no picture is taken before the stream is registered", async () => {
  const { clock, client, socket, taken } = await started();
  await clock.advance(5000);
  assert.equal(taken(), 0);
  await registered(socket, clock);
  assert.ok(taken() > 0);
  client.close();
});

test("at most the window is under way, and an acknowledgement asks for the next picture", async () => {
  const { clock, client, socket, taken } = await started();
  await registered(socket, clock);
  await clock.advance(100);
  assert.equal(frames(socket).length, 1, "of this network nothing is known yet");
  const first = frames(socket).at(-1) as { timestamp: number; data: string };
  assert.equal(first.data, JPEG);
  socket.emit({ type: "ack", streamId: "phone", frameId: 1, timestamp: first.timestamp });
  await clock.advance(100);
  assert.equal(frames(socket).length, 3);
  assert.equal(taken(), 3);
  client.close();
});

test("while nobody watches no picture is taken, and a viewer brings one at once", async () => {
  const { clock, client, socket, taken } = await started();
  await registered(socket, clock);
  socket.emit({ type: "demand", streamId: "phone", viewers: 0, fps: 0, timestamp: clock.wall() });
  const before = taken();
  const timestamp = (frames(socket).at(-1) as { timestamp: number }).timestamp;
  socket.emit({ type: "ack", streamId: "phone", frameId: 2, timestamp });
  await clock.advance(8000);
  assert.equal(taken(), before);
  socket.emit({ type: "demand", streamId: "phone", viewers: 1, fps: 10, timestamp: clock.wall() });
  await clock.advance(100);
  assert.ok(taken() > before);
  client.close();
});

test("a picture that cannot be taken is reported, and the loop goes on until it is stopped", async () => {
  let works = false;
  const { clock, client, socket, stopped, errors, ended } = await started(async () => {
    if (!works) throw new Error("the lens is covered");
    return JPEG;
  });
  await registered(socket, clock);
  await clock.advance(0);
  assert.equal(String(errors[0]), "Error: the lens is covered");
  works = true;
  await new Promise((resolve) => setTimeout(resolve, 1100));
  await clock.advance(100);
  assert.ok(frames(socket).length > 0);
  stopped.abort();
  await clock.advance(0);
  await ended;
  client.close();
});

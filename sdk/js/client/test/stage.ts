/** A client on a fake network, and the server's usual answers. */

import assert from "node:assert/strict";
import { type Camera, Watchout, type WatchoutOptions } from "../dist/index.js";
import { FakeClock, FakeNetwork, type FakeSocket } from "../dist/testing/index.js";

type Json = any;

export class Stage {
  readonly clock = new FakeClock();
  readonly network = new FakeNetwork();
  readonly watchout: Watchout;
  /** Milliseconds until a pong comes; undefined: none does. */
  pongAfter: number | undefined = 0;
  /** Whether frames and requests are answered at all. */
  private readonly answered = new WeakSet<object>();

  constructor(options: WatchoutOptions = {}) {
    this.watchout = new Watchout("https://gateway.example/base/", {
      token: "t",
      WebSocket: this.network.WebSocket,
      clock: this.clock,
      random: () => 0.5,
      ...options,
    });
  }

  /** The messages of a type that the newest socket was sent, JSON ones. */
  sent(type: string, socket: FakeSocket = this.network.last()): Json[] {
    return socket.sent.filter((each: Json) => each.type === type);
  }

  /** Let time pass; the server answers sign-ins, subscriptions, registrations and pings. */
  async run(ms = 0, stepMs = 50): Promise<void> {
    for (let left = ms; ; left -= stepMs) {
      await this.clock.advance(Math.max(0, Math.min(stepMs, left)));
      for (let turn = 0; turn < 4; turn++) {
        this.answer();
        await this.clock.advance(0);
      }
      if (left <= stepMs) return;
    }
  }

  /** Accept sockets and answer what is not answered yet. */
  answer(): void {
    for (const socket of this.network.open) {
      if (socket.readyState === 0) socket.accept();
      for (const message of [...socket.sent] as Json[]) {
        if (this.answered.has(message)) continue;
        this.answered.add(message);
        const { type, streamId = "stream_1_x", requestId } = message;
        const timestamp = this.clock.wall();
        const done = (event: string): void => socket.emit({ type: "success", event, message: "", streamId, requestId, timestamp });
        if (type === "auth") socket.emit({ type: "success", event: "authenticated", message: "", requestId, timestamp });
        if (type === "subscribe") {
          done("subscribed");
          socket.emit({ type: "status", streamId, status: "streaming", timestamp });
        }
        if (type === "unsubscribe") done("unsubscribed");
        if (type === "register") done("registered");
        if (type === "ping" && this.pongAfter !== undefined) {
          const pong = (): void => socket.emit({ type: "pong", requestId, timestamp: this.clock.wall() });
          if (this.pongAfter === 0) pong();
          else this.clock.timer(pong, this.pongAfter);
        }
      }
    }
  }

  frame(streamId: string, frameId: number, socket: FakeSocket = this.network.last("/base/streams/subscribe")): void {
    socket.emit({ type: "video-frame", streamId, frameId, data: btoa(`picture ${frameId}`), timestamp: 1_750_000_000_000 + frameId });
  }

  alert(streamId: string, id: string, timestamp = this.clock.wall()): void {
    this.network.last("/base/streams/subscribe").emit({ type: "alert", id, streamId, severity: "high", message: id, timestamp });
  }

  async camera(options = {}): Promise<[Camera, FakeSocket]> {
    const camera = this.watchout.camera(options);
    await this.run();
    return [camera, this.network.last("/base/streams/register")];
  }

  /** Close the client: nothing is left. */
  async close(): Promise<void> {
    this.watchout.close();
    await this.clock.advance(0);
    assert.equal(this.clock.pending, 0, "timers are left");
    assert.equal(this.network.open.length, 0, "sockets are left");
  }
}

/** What an iterator has now, without waiting for more. */
export async function drain<T>(iterator: AsyncIterator<T>, most = 10_000): Promise<T[]> {
  const got: T[] = [];
  for (let count = 0; count < most; count++) {
    const next = await Promise.race([iterator.next(), nothing()]);
    if (next === undefined || next.done) break;
    got.push(next.value);
  }
  return got;
}

async function nothing(): Promise<undefined> {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  return undefined;
}

/** A JWT that ends in so many seconds, as a server signs it. */
export function jwt(clock: FakeClock, seconds: number, mark = ""): string {
  const iat = Math.floor(clock.wall() / 1000);
  const part = (value: object): string => btoa(JSON.stringify(value)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `${part({ alg: "HS256" })}.${part({ sub: "ü?~", iat, exp: iat + seconds, mark })}.sig`;
}

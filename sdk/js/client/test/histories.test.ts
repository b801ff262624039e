/** Random histories of a network and a server: whatever happens, each alert comes once and in order, and nothing is left. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Watchout } from "../dist/index.js";
import { FakeClock, FakeNetwork, type FakeSocket } from "../dist/testing/index.js";

type Json = any;
/** Seeds; WATCHOUT_HISTORIES=n plays the first n. */
const SEEDS = process.env["WATCHOUT_HISTORIES"]
  ? Array.from({ length: Number(process.env["WATCHOUT_HISTORIES"]) }, (_, at) => at + 1)
  : [1, 2, 3, 4, 5, 120];
const BACK = [1001, 1006, 1011, 1012, 1013, 4400, 4408];

/** A small generator of numbers in [0, 1) (mulberry32): a seed is a history. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A server that keeps all alerts, as a real one does, behind a network that may be silent. */
class World {
  readonly clock = new FakeClock();
  readonly network = new FakeNetwork();
  readonly alerts: { readonly id: string; readonly at: number }[] = [];
  silent = false;
  private readonly read = new Map<FakeSocket, number>();
  private readonly subscribed = new Set<FakeSocket>();
  /** What TCP holds while the network is silent. */
  private readonly held: [FakeSocket, object][] = [];

  /** An alert is accepted now; whoever is subscribed gets it, late where the network is silent. */
  accept(): void {
    const alert = { id: `a${this.alerts.length}`, at: this.clock.wall() };
    this.alerts.push(alert);
    for (const socket of this.subscribed) this.deliver(socket, alert);
  }

  private deliver(socket: FakeSocket, alert: { readonly id: string; readonly at: number }): void {
    this.emit(socket, { type: "alert", id: alert.id, streamId: "cam-1", severity: "low", message: "m", timestamp: alert.at - 700 });
  }

  private emit(socket: FakeSocket, message: object): void {
    if (this.silent) this.held.push([socket, message]);
    else socket.emit(message as Json);
  }

  /** Answer what sockets sent. */
  serve(): void {
    if (!this.silent) for (const [socket, message] of this.held.splice(0)) socket.emit(message as Json);
    for (const socket of this.network.sockets) {
      if (socket.readyState === 3) {
        this.subscribed.delete(socket);
        continue;
      }
      if (this.silent) continue;
      if (socket.readyState === 0) socket.accept();
      for (let at = this.read.get(socket) ?? 0; at < socket.sent.length; at++) {
        this.read.set(socket, at + 1);
        const { type, requestId, streamId, alertsSince, consumes } = socket.sent[at] as Json;
        const timestamp = this.clock.wall();
        const done = (event: string, more = {}): void => socket.emit({ type: "success", event, message: "", streamId, requestId, timestamp, ...more });
        if (type === "auth") done("authenticated");
        if (type === "ping") socket.emit({ type: "pong", requestId, timestamp });
        if (type === "unsubscribe") {
          this.subscribed.delete(socket);
          done("unsubscribed");
        }
        if (type === "subscribe") {
          done("subscribed", alertsSince === undefined ? {} : { recovered: true });
          if (alertsSince !== undefined) for (const alert of this.alerts) if (alert.at >= alertsSince) this.deliver(socket, alert);
          if (consumes.includes("alert")) this.subscribed.add(socket);
        }
      }
    }
  }

  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 100) {
      await this.clock.advance(Math.min(100, left));
      for (let turn = 0; turn < 3; turn++) {
        this.serve();
        await this.clock.advance(0);
      }
    }
  }
}

async function play(seed: number): Promise<void> {
  const random = randomOf(seed);
  const world = new World();
  let asking = 0;
  const watchout = new Watchout("https://gateway.example", {
    token: async () => {
      assert.equal(++asking, 1, "one call of the token callback at a time");
      await Promise.resolve();
      asking--;
      if (random() < 0.2) throw new Error("no network");
      return `token ${random()}`;
    },
    WebSocket: world.network.WebSocket,
    clock: world.clock,
    random,
  });
  const view = watchout.view("cam-1", { format: random() < 0.5 ? "json" : "binary" });
  const got: string[] = [];
  view.on("alert", (alert) => {
    assert.equal(alert.recovered, true);
    got.push(alert.id);
  });
  while (view.member.since === undefined) await world.pass(500);
  const first = world.alerts.length;
  const others = new Set([view]);
  for (let step = 0; step < 40; step++) {
    const choice = random();
    if (choice < 0.4) world.accept();
    else if (choice < 0.5) world.network.sockets.at(-1)?.end(BACK[Math.floor(random() * BACK.length)] as number);
    else if (choice < 0.55) world.silent = !world.silent;
    else if (choice < 0.6) others.add(watchout.view("cam-1", random() < 0.5 ? {} : { alertsSince: world.clock.wall() - 60_000 }));
    else if (choice < 0.65) for (const each of others) if (each !== view && random() < 0.5) each.close();
    if (choice >= 0.65 && choice < 0.7) view.pause();
    else if (choice >= 0.7 && choice < 0.75) view.resume();
    else if (choice >= 0.75 && choice < 0.8) view.update({ maxFps: 1 + Math.floor(random() * 9) });
    await world.pass(random() < 0.2 ? random() * 20_000 : random() * 600);
    assert.ok(world.network.open.length <= 1, "one socket at a time");
  }
  world.silent = false;
  await world.pass(130_000);
  assert.equal(watchout.state, "online");
  assert.deepEqual(got, world.alerts.slice(first).map((each) => each.id));
  watchout.close();
  await world.clock.advance(0);
  assert.equal(world.clock.pending, 0);
  assert.equal(world.network.open.length, 0);
}

test(`${SEEDS.length} random histories`, async () => {
  for (const seed of SEEDS)
    try {
      await play(seed);
    } catch (error) {
      (error as Error).message = `history ${seed}: ${(error as Error).message}`;
      throw error;
    }
});

/** Plays one dialogue of sdk/conformance/dialogues.json against the client: this is the server, the app and the clock. */

import assert from "node:assert/strict";
import { type Camera, Watchout, WatchoutError, type View } from "../dist/index.js";
import { FakeClock, FakeNetwork, type FakeSocket } from "../dist/testing/index.js";

type Json = any;
export interface Dialogue {
  readonly name: string;
  readonly client: { readonly token?: string; readonly cookie?: boolean; readonly tokens?: readonly { why: string; give?: string | null; fail?: boolean }[] };
  readonly steps: readonly Record<string, Json>[];
}

export async function play(dialogue: Dialogue): Promise<void> {
  const player = new Player(dialogue);
  for (const [at, step] of dialogue.steps.entries())
    try {
      await player.step(step);
    } catch (error) {
      (error as Error).message = `step ${at} ${JSON.stringify(step)}: ${(error as Error).message}`;
      throw error;
    }
  await player.finish();
}

class Player {
  private readonly clock = new FakeClock();
  private readonly network = new FakeNetwork();
  private readonly bound = new Map<string, unknown>();
  private readonly watchout: Watchout;
  private readonly views = new Map<string, View>();
  private readonly frames = new Map<string, AsyncIterableIterator<Json>>();
  private readonly asked = new Map<string, Promise<Json>>();
  private readonly alerts = new Map<string, Json[]>();
  private readonly errors: { readonly from: string; readonly code: string }[] = [];
  private camera: Camera | undefined;
  private opened = 0;
  private silent = false;
  private calls = 0;

  constructor(private readonly dialogue: Dialogue) {
    const { client } = dialogue;
    const token = (why: string): string | null => {
      const call = client.tokens?.[this.calls++];
      assert.ok(call !== undefined, `a token was asked for once more: ${why}`);
      assert.equal(why, call.why);
      if (call.fail) throw new Error("no network");
      return call.give ?? null;
    };
    this.watchout = new Watchout("https://gateway.example", {
      ...(client.cookie ? {} : { token: client.token ?? token }),
      WebSocket: this.network.WebSocket,
      clock: this.clock,
      random: () => 0.5,
    });
    this.watchout.on("error", (error) => this.errors.push({ from: "", code: error.code }));
  }

  async step(step: Record<string, Json>): Promise<void> {
    await this.clock.advance(0);
    const kind = ["open", "refuse", "client", "clientFrame", "server", "onlySdk", "serverFrame", "close", "closed", "wait", "network", "quiet", "world", "app", "expect"].find((each) => each in step);
    switch (kind) {
      case "open":
        (await this.opens(step["open"], step["within"] ?? 0)).accept();
        break;
      case "refuse":
        (await this.opens(step["refuse"], step["within"] ?? 0)).end(1006);
        break;
      case "client":
        this.match(await this.sent(step["client"]["type"] === "ping"), step["client"], "message");
        break;
      case "clientFrame":
        this.matchFrame(await this.sent(false), step["clientFrame"]);
        break;
      case "server":
      case "onlySdk":
        this.socket.emit(this.filled(step[kind]));
        break;
      case "serverFrame":
        this.socket.emit(frameOf(step["serverFrame"]));
        break;
      case "close":
        this.socket.end(step["close"], step["reason"] ?? "");
        break;
      case "closed":
        assert.notEqual(this.socket.closedWith, undefined, "the client did not close its socket");
        break;
      case "wait":
        await this.wait(step["wait"] * 1000);
        break;
      case "network":
        this.silent = step["network"] === "silent";
        break;
      case "quiet":
        this.quiet();
        break;
      case "app":
        await this.app(step["app"], step);
        break;
      case "expect":
        this.expect(step["expect"], step);
        break;
      case "world":
        break;
      default:
        assert.fail(`unknown step ${JSON.stringify(step)}`);
    }
    await this.clock.advance(0);
    this.pongs();
    await this.clock.advance(0);
  }

  async finish(): Promise<void> {
    assert.equal(this.calls, this.dialogue.client.tokens?.length ?? this.calls, "calls of the token callback are left over");
    this.watchout.close();
    await this.clock.advance(0);
    assert.equal(this.clock.pending, 0, "timers are left after close()");
    assert.equal(this.network.open.length, 0, "sockets are left after close()");
  }

  private get socket(): FakeSocket {
    return this.network.last();
  }

  private async opens(path: string, withinS: number): Promise<FakeSocket> {
    const until = this.clock.now() + withinS * 1000;
    while (this.network.sockets.length === this.opened && this.clock.now() < until) await this.wait(Math.min(100, until - this.clock.now()));
    assert.equal(this.network.sockets.length, this.opened + 1, "exactly one new socket is opened");
    this.opened++;
    assert.equal(this.socket.path, path);
    assert.equal(new URL(this.socket.url).protocol, "wss:");
    assert.match(new URL(this.socket.url).search, /^(\?streamId=[\w.:-]+)?$/, "no token stands in the URL");
    return this.socket;
  }

  private async wait(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 100) {
      await this.clock.advance(Math.min(100, left));
      this.pongs();
    }
  }

  /** Answer the pings of the client. */
  private pongs(): void {
    for (const socket of this.network.open)
      for (let at = 0; at < socket.sent.length; ) {
        const message = socket.sent[at] as Json;
        if (message.type !== "ping" || this.dialogue.client.cookie) at++;
        else {
          socket.sent.splice(at, 1);
          const { requestId } = message;
          if (!this.silent) socket.emit({ type: "pong", ...(requestId === undefined ? {} : { requestId }), timestamp: this.clock.wall() });
        }
      }
  }

  private async sent(pings: boolean): Promise<Json> {
    for (;;) {
      const message = this.socket.next() as Json;
      if (message.type !== "ping" || pings) return message;
    }
  }

  private quiet(): void {
    assert.equal(this.network.sockets.length, this.opened, "a socket was opened");
    const sent = this.network.sockets.at(-1)?.sent ?? [];
    assert.deepEqual(sent.filter((each: Json) => each.type !== "ping"), [], "nothing is sent");
  }

  private match(came: Json, wanted: Json, where: string): void {
    if (typeof wanted === "string" && wanted.startsWith("$")) {
      if (wanted === "$any") return;
      if (wanted === "$past") return assert.ok(Number.isInteger(came) && came <= this.clock.wall() && came > this.clock.wall() - 120_000, `${where}: ${came} is a time in the past`);
      if (!this.bound.has(wanted)) this.bound.set(wanted, came);
      return assert.equal(came, this.bound.get(wanted), where);
    }
    if (typeof wanted !== "object" || wanted === null) return assert.equal(came, wanted, where);
    if (Array.isArray(wanted)) return assert.deepEqual(came, wanted, where);
    assert.ok(typeof came === "object" && came !== null, `${where}: ${came} is no object`);
    for (const [name, value] of Object.entries(wanted)) this.match(came[name], value, `${where}.${name}`);
  }

  private matchFrame(came: Json, wanted: Json): void {
    assert.ok(came instanceof Uint8Array, "a binary message");
    const view = new DataView(came.buffer, came.byteOffset);
    assert.deepEqual([...came.subarray(0, 4)], [0x57, 1, 1, 0]);
    assert.equal(Number(view.getBigUint64(8)), wanted.timestamp);
    assert.equal(new TextDecoder().decode(came.subarray(18 + view.getUint8(17))), wanted.picture);
  }

  private filled(value: Json): Json {
    if (value === "$now") return this.clock.wall();
    if (typeof value === "string" && value.startsWith("$")) {
      assert.ok(this.bound.has(value), `${value} is not bound`);
      return this.bound.get(value);
    }
    if (Array.isArray(value)) return value.map((each) => this.filled(each));
    if (typeof value === "object" && value !== null) return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.filled(each)]));
    return value;
  }

  private async app(what: string, step: Json): Promise<void> {
    const { streamId } = step;
    switch (what) {
      case "view": {
        const { app: _, streamId: __, ...options } = step;
        const view = this.watchout.view(streamId, options);
        this.views.set(streamId, view);
        this.alerts.set(streamId, []);
        view.on("alert", (alert) => this.alerts.get(streamId)?.push({ id: alert.id, recovered: alert.recovered }));
        view.on("error", (error) => this.errors.push({ from: streamId, code: error.code }));
        if (options.frames) this.frames.set(streamId, view.frames());
        return;
      }
      case "ask":
        this.asked.set(streamId, (this.frames.get(streamId) as AsyncIterableIterator<Json>).next());
        return;
      case "take": {
        const { value } = await (this.asked.get(streamId) ?? (this.frames.get(streamId) as AsyncIterableIterator<Json>).next());
        this.asked.delete(streamId);
        assert.equal(value.frameId, step.frameId);
        return assert.equal(new TextDecoder().decode(value.bytes), step.picture);
      }
      case "pause":
        return this.views.get(streamId)?.pause();
      case "resume":
        return this.views.get(streamId)?.resume();
      case "unview":
        return this.views.get(streamId)?.close();
      case "camera": {
        const { app: _, ...options } = step;
        this.camera = this.watchout.camera(options);
        this.camera.on("error", (error) => this.errors.push({ from: "", code: error.code }));
        return;
      }
      case "send":
        return assert.equal(this.camera?.send(new TextEncoder().encode(step.picture), { timestamp: step.timestamp }), step.sent);
      case "alert":
        this.camera?.alert(step.severity, step.message, { id: step.id });
        return;
      case "connect":
        return this.watchout.connect();
      case "close":
        return this.watchout.close();
      default:
        assert.fail(`unknown: ${what}`);
    }
  }

  private expect(what: string, step: Json): void {
    switch (what) {
      case "state":
      case "camera": {
        const event = what === "state" ? this.watchout.stateEvent : this.camera?.state;
        assert.equal(event?.state, step.is);
        if (step.code !== undefined) assert.equal(event?.reason?.code, step.code);
        if (event?.reason !== undefined) assert.ok(event.reason instanceof WatchoutError);
        return;
      }
      case "status":
        return assert.equal(this.views.get(step.streamId)?.status, step.is);
      case "alerts": {
        assert.deepEqual(this.alerts.get(step.streamId), step.are);
        this.alerts.set(step.streamId, []);
        return;
      }
      case "error": {
        const found = this.errors.findIndex((each) => each.code === step.code && each.from === (step.streamId ?? ""));
        assert.ok(found >= 0, `no such error among ${JSON.stringify(this.errors)}`);
        this.errors.splice(found, 1);
        return;
      }
      case "room":
        return assert.equal(this.camera?.room, step.is);
      case "demand":
        return assert.equal(this.camera?.demand?.fps, step.fps);
      default:
        assert.fail(`unknown: ${what}`);
    }
  }
}

function frameOf(step: Json): ArrayBuffer {
  const id = new TextEncoder().encode(step.streamId);
  const picture = new TextEncoder().encode(step.picture);
  const bytes = new Uint8Array(18 + id.length + picture.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x57, 1, 1, 0]);
  view.setUint32(4, step.frameId);
  view.setBigUint64(8, BigInt(step.timestamp));
  view.setUint8(16, 0);
  view.setUint8(17, id.length);
  bytes.set(id, 18);
  bytes.set(picture, 18 + id.length);
  return bytes.buffer;
}

/** One socket and its timer: carries out what `Connection` and the session on it command. */

import { Connection, type Command } from "./core/connection.js";
import { WatchoutError } from "./errors.js";
import type { ClientMessage, ServerMessage } from "./messages.js";
import type { TokenKeeper } from "./tokens.js";
import type { Clock, Frame, Platform, SocketConstructor, SocketLike, StateEvent } from "./types.js";
import { decodeFrame, frameOfMessage } from "./wire.js";

/** What the parts of one client share. */
export interface Environment {
  readonly url: URL;
  readonly clock: Clock;
  readonly random: () => number;
  readonly platform: Platform;
  readonly socket: () => SocketConstructor;
  readonly mode: "token" | "ticket" | "cookie";
  readonly tokens: TokenKeeper | undefined;
  readonly silenceMs: number;
  readonly firstMs: number;
  readonly capMs: number;
  readonly stableMs: number;
}

/** What runs over a link. */
export interface Session {
  readonly deadline: number;
  onReady(now: number): void;
  onLost(): void;
  onMessage(message: ServerMessage, now: number): void;
  onFrame?(frame: Frame, now: number): void;
  onState(event: StateEvent): void;
  onError(error: WatchoutError): void;
  tick(now: number): void;
}

export class Link {
  readonly connection: Connection;
  private socket: SocketLike | undefined;
  private readonly commands: Command[] = [];
  private working = false;
  private timer: { readonly at: number; cancel(): void } | undefined;
  private stopPlatform: (() => void) | undefined;

  constructor(
    private readonly environment: Environment,
    private readonly path: string,
    private readonly session: Session,
  ) {
    const { mode, tokens, silenceMs, firstMs, capMs, stableMs, random } = environment;
    const options = { mode, renewable: tokens?.renewable ?? false, silenceMs, firstMs, capMs, stableMs, random };
    this.connection = new Connection(options, (command) => this.commands.push(command));
  }

  get state(): StateEvent {
    return this.connection.state;
  }

  /** Bytes that wait in the socket; 0 where the platform does not say. */
  get backlog(): number {
    return this.socket?.bufferedAmount ?? 0;
  }

  /** Seconds for `pingEvery`; undefined: `auth` has said it already. */
  get pingEvery(): number | undefined {
    return this.environment.mode === "token" ? undefined : this.connection.pingEvery;
  }

  get serverHeardAt(): number | undefined {
    const { heardAt, serverOffset } = this.connection;
    return serverOffset === undefined ? undefined : Math.round(heardAt + serverOffset);
  }

  /** Report an event to the cores, then carry out their commands. */
  act(run: (now: number) => void): void {
    const now = this.environment.clock.now();
    if (this.working) return run(now); // the caller further up carries out the commands
    this.working = true;
    try {
      run(now);
      for (let command = this.commands.shift(); command !== undefined; command = this.commands.shift()) this.carryOut(command);
    } finally {
      this.working = false;
    }
    this.arm();
  }

  send(message: ClientMessage | Uint8Array<ArrayBuffer>): boolean {
    if (this.socket === undefined || !this.connection.open) return false;
    return this.write(message instanceof Uint8Array ? message : JSON.stringify(message));
  }

  private carryOut(command: Command): void {
    const { session } = this;
    switch (command.do) {
      case "token":
        return this.askToken(command);
      case "open":
        return this.openSocket(command.ticket);
      case "send":
        this.write(JSON.stringify(command.message));
        return;
      case "drop":
        return this.dropSocket(command.code);
      case "ready":
        return session.onReady(this.environment.clock.now());
      case "lost":
        return session.onLost();
      case "error":
        return session.onError(command.error);
      case "state":
        this.watchPlatform(command.event.state !== "idle" && command.event.state !== "closed");
        return session.onState(command.event);
    }
  }

  private askToken(command: Extract<Command, { do: "token" }>): void {
    this.environment.tokens?.get(command.why, command.used).then(
      (token) => this.act((now) => this.connection.onToken(token, now)),
      (error: unknown) => this.act((now) => this.connection.onTokenFailed(error, now)),
    );
  }

  private openSocket(ticket: string | undefined): void {
    const url = new URL(this.environment.url.href.replace(/\/*$/, "") + this.path);
    url.protocol = url.protocol.replace("http", "ws");
    if (ticket !== undefined) url.searchParams.set("ticket", ticket);
    let socket: SocketLike;
    try {
      socket = new (this.environment.socket())(url.href);
    } catch (cause) {
      const error = new WatchoutError("CONNECTION_LOST", `no socket to ${url.origin}: ${String(cause)}`, { cause });
      return this.act(() => this.connection.close(error));
    }
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    const mine = (run: (now: number) => void): void => {
      if (this.socket === socket) this.act(run);
    };
    socket.onopen = () => mine((now) => this.connection.onOpen(now));
    socket.onmessage = (event: { data: unknown }) => mine((now) => this.receive(event.data, now));
    socket.onerror = () => undefined; // a close follows, which says as much
    socket.onclose = (event: { code?: number; reason?: string }) =>
      mine((now) => {
        this.socket = undefined;
        this.connection.onClose(event.code ?? 0, event.reason ?? "", now);
      });
  }

  private dropSocket(code: number): void {
    const { socket } = this;
    this.socket = undefined;
    if (socket === undefined) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => undefined; // Node's `ws` throws an error that nobody listens to
    try {
      socket.close(code);
    } catch {
      // it did not open yet, or the platform refuses the code: it is forgotten either way
    }
  }

  private receive(data: unknown, now: number): void {
    if (typeof data !== "string") {
      const frame = bufferOf(data);
      const decoded = frame && decodeFrame(frame, now);
      this.connection.onMessage(undefined, now);
      if (decoded !== undefined) this.session.onFrame?.(decoded, now);
      return;
    }
    let message: ServerMessage;
    try {
      message = JSON.parse(data) as ServerMessage;
      if (typeof message !== "object" || message === null) return;
    } catch {
      return; // not of this protocol
    }
    if (this.connection.onMessage(message, now)) {
      if (message.type === "pong") this.session.onMessage(message, now);
      return;
    }
    if (message.type === "video-frame") {
      const frame = frameOfMessage(message as unknown as Record<string, unknown>, now);
      if (frame !== undefined) this.session.onFrame?.(frame, now);
    } else this.session.onMessage(message, now);
  }

  private write(data: string | Uint8Array<ArrayBuffer>): boolean {
    try {
      this.socket?.send(data);
      return true;
    } catch {
      return false; // it is closing: `onclose` says why
    }
  }

  private watchPlatform(on: boolean): void {
    if (on === (this.stopPlatform !== undefined)) return;
    this.stopPlatform?.();
    const report = (event: "online" | "offline" | "wake"): void => this.act((now) => this.connection.onPlatform(event, now));
    this.stopPlatform = on ? this.environment.platform(report) : undefined;
  }

  private arm(): void {
    const at = Math.min(this.connection.deadline, this.session.deadline);
    if (this.timer !== undefined && this.timer.at <= at && at < Infinity) return; // it rings early and looks again
    this.timer?.cancel();
    this.timer = undefined;
    if (at === Infinity) return;
    const { clock } = this.environment;
    const ring = (): void => {
      this.timer = undefined;
      this.act((now) => {
        this.connection.tick(now);
        this.session.tick(now);
      });
    };
    this.timer = { at, cancel: clock.timer(ring, Math.max(0, Math.ceil(at - clock.now()))) };
  }
}

function bufferOf(data: unknown): ArrayBuffer | undefined {
  if (data instanceof ArrayBuffer) return data;
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice().buffer as ArrayBuffer;
  return undefined;
}

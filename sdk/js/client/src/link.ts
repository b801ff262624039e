/** One socket and its timer: carries out the commands of `Connection` and of the session on it. */

import { Connection, type Command } from "./core/connection.js";
import type { Wire } from "./core/subscriptions.js";
import { WatchoutError } from "./errors.js";
import type { ClientMessage, ServerMessage } from "./messages.js";
import type { TokenKeeper } from "./tokens.js";
import type { Clock, Frame, Platform, SocketConstructor, SocketLike, StateEvent } from "./types.js";
import { decodeFrame, frameOfMessage } from "./wire.js";

/** What the parts of one client share. */
export interface Environment {
  /** The gateway's address, of http or https, without a slash at its end. */
  readonly url: string;
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

/** The session on a link: subscriptions, or a publication. */
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

export class Link implements Wire {
  readonly connection: Connection;
  private _socket: SocketLike | undefined;
  private readonly _commands: Command[] = [];
  private _working = false;
  private _timer: { readonly at: number; cancel(): void } | undefined;
  private _stopPlatform: (() => void) | undefined;

  constructor(
    private readonly _environment: Environment,
    private readonly _path: string,
    /** The one stream that the next connection is for: a proxy may bring all who name it to one machine. */
    private readonly _placement: () => string | undefined,
    private readonly _session: Session,
  ) {
    const options = { ..._environment, renewable: _environment.tokens?.renewable ?? false };
    this.connection = new Connection(options, (command) => this._commands.push(command));
  }

  get state(): StateEvent {
    return this.connection.state;
  }

  /** Bytes that wait in the socket, 0 where the platform does not report it; Infinity: it is not open. */
  get backlog(): number {
    return this._socket?.readyState === 1 ? (this._socket.bufferedAmount ?? 0) : Infinity;
  }

  /** Seconds for `pingEvery`; undefined: `auth` has sent it already. */
  get pingEvery(): number | undefined {
    return this._environment.mode === "token" ? undefined : this.connection.pingEvery;
  }

  get roundTrips(): readonly number[] {
    return this.connection.roundTrips;
  }

  get serverHeardAt(): number | undefined {
    const { _heardAt, _serverOffset } = this.connection;
    return _serverOffset === undefined ? undefined : Math.round(_heardAt + _serverOffset);
  }

  requestId(): string {
    return this.connection.requestId();
  }

  /** Report an event to the cores, then carry out their commands. */
  act(run: (now: number) => void): void {
    const now = this._environment.clock.now();
    if (this._working) return run(now); // a call further up the stack carries out the commands
    this._working = true;
    try {
      run(now);
      for (let command = this._commands.shift(); command !== undefined; command = this._commands.shift()) this._carryOut(command);
    } finally {
      this._working = false;
    }
    this._arm();
  }

  send(message: ClientMessage | Uint8Array<ArrayBuffer>): boolean {
    if (this._socket === undefined || !this.connection.open) return false;
    return this._write(message instanceof Uint8Array ? message : JSON.stringify(message));
  }

  private _carryOut(command: Command): void {
    const { _session: session } = this;
    switch (command.do) {
      case "token":
        return this._askToken(command);
      case "open":
        return this._openSocket(command.ticket);
      case "send":
        this._write(JSON.stringify(command.message));
        return;
      case "drop":
        return this._dropSocket(command.code);
      case "ready":
        return session.onReady(this._environment.clock.now());
      case "lost":
        return session.onLost();
      case "error":
        return session.onError(command.error);
      case "state":
        this._watchPlatform(command.event.state !== "idle" && command.event.state !== "closed");
        return session.onState(command.event);
    }
  }

  private _askToken(command: Extract<Command, { do: "token" }>): void {
    if (this.state.state === "closed") return; // by a listener
    this._environment.tokens?.get(command.why, command.used).then(
      (token) => this.act((now) => this.connection.onToken(token, now)),
      (error: WatchoutError) => this.act((now) => this.connection.onTokenFailed(error, now)),
    );
  }

  private _openSocket(ticket: string | undefined): void {
    const streamId = this._placement();
    const url = this._environment.url.replace("http", "ws") + this._path + (streamId ? `?streamId=${streamId}` : "");
    let socket: SocketLike;
    try {
      socket = new (this._environment.socket())(ticket === undefined ? url : `${url}${streamId ? "&" : "?"}ticket=${encodeURIComponent(ticket)}`);
    } catch (cause) {
      const error = new WatchoutError("CONNECTION_LOST", `no answer from ${url}: ${cause}`, { cause });
      return this.act(() => this.connection.close(error));
    }
    this._socket = socket;
    socket.binaryType = "arraybuffer";
    const mine = (run: (now: number) => void): void => {
      if (this._socket === socket) this.act(run);
    };
    socket.onopen = () => mine((now) => this.connection.onOpen(now));
    socket.onmessage = (event: { data: unknown }) => mine((now) => this._receive(event.data, now));
    socket.onerror = () => undefined; // `onclose` follows
    socket.onclose = (event: { code?: number; reason?: string }) =>
      mine((now) => {
        this._socket = undefined;
        this.connection.onClose(event.code ?? 0, event.reason ?? "", now);
      });
  }

  private _dropSocket(code: number): void {
    const { _socket: socket } = this;
    this._socket = undefined;
    if (socket === undefined) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => undefined; // the package `ws` throws errors without a listener
    try {
      socket.close(code);
    } catch {
      // it is not open yet, or the platform refuses the code; its events are ignored in any case
    }
  }

  private _receive(data: unknown, now: number): void {
    if (typeof data !== "string") {
      const frame = bufferOf(data);
      const decoded = frame && decodeFrame(frame, now);
      this.connection.onMessage(undefined, now);
      if (decoded !== undefined) this._session.onFrame?.(decoded, now);
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
      if (message.type === "pong") this._session.onMessage(message, now);
      return;
    }
    if (message.type === "video-frame") {
      const frame = frameOfMessage(message as unknown as Record<string, unknown>, now);
      if (frame !== undefined) this._session.onFrame?.(frame, now);
    } else this._session.onMessage(message, now);
  }

  private _write(data: string | Uint8Array<ArrayBuffer>): boolean {
    try {
      this._socket?.send(data);
      return true;
    } catch {
      return false; // it is closing: `onclose` follows
    }
  }

  private _watchPlatform(on: boolean): void {
    if (on === (this._stopPlatform !== undefined)) return;
    this._stopPlatform?.();
    const report = (event: "online" | "offline" | "wake"): void => this.act((now) => this.connection.onPlatform(event, now));
    this._stopPlatform = on ? this._environment.platform(report) : undefined;
  }

  private _arm(): void {
    const at = Math.min(this.connection.deadline, this._session.deadline);
    if (this._timer !== undefined && this._timer.at <= at && at < Infinity) return; // that timer fires earlier, and sets the next one
    this._timer?.cancel();
    this._timer = undefined;
    if (at === Infinity) return;
    const { clock } = this._environment;
    const ring = (): void => {
      this._timer = undefined;
      this.act((now) => {
        this.connection.tick(now);
        this._session.tick(now);
      });
    };
    this._timer = { at, cancel: clock.timer(ring, Math.max(0, Math.ceil(at - clock.now()))) };
  }
}

function bufferOf(data: unknown): ArrayBuffer | undefined {
  if (data instanceof ArrayBuffer) return data;
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice().buffer as ArrayBuffer;
  return undefined;
}

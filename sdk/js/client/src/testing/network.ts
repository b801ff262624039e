/** Sockets whose other end is the test. */

import type { ClientMessage, ServerMessage } from "../messages.js";
import type { SocketConstructor, SocketLike } from "../types.js";

/** One socket that the client opened. The test plays the server: `accept`, `send`, `end`. */
export class FakeSocket implements SocketLike {
  binaryType = "blob";
  readyState = 0;
  onopen: ((event: any) => void) | null = null;
  onmessage: ((event: any) => void) | null = null;
  onclose: ((event: any) => void) | null = null;
  onerror: ((event: any) => void) | null = null;
  /** What the client sent and the test has not read yet. */
  readonly sent: (ClientMessage | Uint8Array)[] = [];
  /** The code with which the client closed. */
  closedWith: number | undefined;

  constructor(readonly url: string) {}

  get path(): string {
    return new URL(this.url).pathname;
  }

  send(data: string | ArrayBufferLike | ArrayBufferView): void {
    if (this.readyState !== 1) throw new Error("the socket is not open");
    if (typeof data === "string") this.sent.push(JSON.parse(data) as ClientMessage);
    else if (ArrayBuffer.isView(data)) this.sent.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice());
    else this.sent.push(new Uint8Array(data).slice());
  }

  close(code = 1005): void {
    if (this.readyState >= 2) return;
    this.readyState = 3;
    this.closedWith = code;
  }

  /** The next message that the client sent; throws when there is none. */
  next(): ClientMessage | Uint8Array {
    const message = this.sent.shift();
    if (message === undefined) throw new Error("the client sent nothing");
    return message;
  }

  /** Accept the upgrade. */
  accept(): void {
    this.readyState = 1;
    this.onopen?.({});
  }

  /** Send a message to the client. */
  emit(message: ServerMessage | Record<string, unknown> | ArrayBuffer): void {
    if (this.readyState !== 1) return;
    this.onmessage?.({ data: message instanceof ArrayBuffer ? message : JSON.stringify(message) });
  }

  /** End the socket with a close code; 1006: the connection broke, or the upgrade was refused. */
  end(code: number, reason = ""): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    if (code === 1006) this.onerror?.({});
    this.onclose?.({ code, reason, wasClean: code !== 1006 });
  }
}

/** All sockets that a client opens: pass `network.WebSocket` as the option `WebSocket`. */
export class FakeNetwork {
  /** In the order in which they were opened. */
  readonly sockets: FakeSocket[] = [];
  readonly WebSocket: SocketConstructor;

  constructor() {
    const { sockets } = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url: string) {
        super(url);
        sockets.push(this);
      }
    };
  }

  /** The newest socket, of this path if one is given; throws when there is none. */
  last(path?: string): FakeSocket {
    const found = this.sockets.filter((each) => path === undefined || each.path === path).at(-1);
    if (found === undefined) throw new Error(`the client opened no socket${path === undefined ? "" : ` to ${path}`}`);
    return found;
  }

  /** Sockets that are open or opening. */
  get open(): FakeSocket[] {
    return this.sockets.filter((each) => each.readyState < 2);
  }
}

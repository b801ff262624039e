/** A WebSocket whose other half is in the page's worker: frames of attached canvases never reach the page's thread. */

import type { FromWorker } from "./messages.js";
import { usePageWorker, type PageWorker } from "./page-worker.js";

type Data = string | ArrayBuffer | ArrayBufferView<ArrayBuffer> | Blob;

const CONNECTING = 0;
const OPEN = 1;
const CLOSING = 2;
const CLOSED = 3;

/** What a page needs of `WebSocket`; binary messages are always `ArrayBuffer`. */
export class WorkerSocket {
  binaryType: BinaryType = "arraybuffer";
  protocol = "";
  extensions = "";
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  #readyState = CONNECTING;
  #bufferedAmount = 0;
  #worker: PageWorker | undefined;
  /** The socket itself, where there is no worker. */
  #own: WebSocket | undefined;
  #number = 0;
  #unlisten: (() => void) | undefined;
  #closing: { code: number | undefined; reason: string | undefined } | undefined;

  readonly url: string;
  readonly protocols: string[];

  constructor(
    url: string,
    protocols: string[],
    client: number,
  ) {
    this.url = url;
    this.protocols = protocols;
    void this.#connect(client);
  }

  get readyState(): number {
    return this.#own?.readyState ?? this.#readyState;
  }

  get bufferedAmount(): number {
    return this.#own?.bufferedAmount ?? this.#bufferedAmount;
  }

  send(data: Data): void {
    if (this.#own !== undefined) {
      this.#own.send(data);
      return;
    }
    if (this.#readyState === CONNECTING) throw new DOMException("the socket is not open yet", "InvalidStateError");
    if (typeof data === "string" || data instanceof Blob || data instanceof ArrayBuffer) {
      this.#worker?.post({ type: "send", socket: this.#number, data });
    } else {
      const copy = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
      this.#worker?.post({ type: "send", socket: this.#number, data: copy }, [copy]);
    }
  }

  close(code?: number, reason?: string): void {
    if (this.#own !== undefined) {
      this.#own.close(code, reason);
      return;
    }
    if (this.#readyState >= CLOSING) return;
    this.#readyState = CLOSING;
    this.#closing = { code, reason };
    if (this.#number !== 0) this.#worker?.post({ type: "close", socket: this.#number, code, reason });
  }

  async #connect(client: number): Promise<void> {
    const worker = usePageWorker();
    const abilities = await worker?.ready;
    if (this.#closing !== undefined) {
      worker?.release();
      this.#closed({ code: 1006, reason: "", wasClean: false });
    } else if (worker === undefined || abilities === undefined) {
      this.#own = this.#ownSocket();
    } else {
      this.#worker = worker;
      this.#number = worker.number();
      this.#unlisten = worker.listen((message) => this.#hear(message));
      worker.post({ type: "open", socket: this.#number, client, url: this.url, protocols: this.protocols });
    }
  }

  #ownSocket(): WebSocket {
    const socket = new WebSocket(this.url, this.protocols);
    socket.binaryType = "arraybuffer";
    socket.onopen = (event) => this.onopen?.(event);
    socket.onmessage = (event) => this.onmessage?.(event);
    socket.onerror = (event) => this.onerror?.(event);
    socket.onclose = (event) => this.onclose?.(event);
    return socket;
  }

  #hear(message: FromWorker): void {
    if (!("socket" in message) || message.socket !== this.#number) return;
    switch (message.type) {
      case "opened":
        this.protocol = message.protocol;
        this.extensions = message.extensions;
        if (this.#readyState !== CONNECTING) return;
        this.#readyState = OPEN;
        this.onopen?.(new Event("open"));
        return;
      case "message":
        this.onmessage?.(new MessageEvent("message", { data: message.data }));
        return;
      case "sent":
        this.#bufferedAmount = message.bufferedAmount;
        return;
      case "failed":
        this.onerror?.(new Event("error"));
        return;
      case "closed":
        this.#unlisten?.();
        this.#worker?.release();
        this.#closed(message);
        return;
    }
  }

  #closed({ code, reason, wasClean }: { code: number; reason: string; wasClean: boolean }): void {
    this.#readyState = CLOSED;
    this.onclose?.(new CloseEvent("close", { code, reason, wasClean }));
  }
}

export type SocketMaker = new (url: string, protocols?: string | string[]) => WorkerSocket;

/** The `WebSocket` of one client: `client` is how its tiles find its sockets in the worker. */
export function socketsOf(client: number): SocketMaker {
  return class extends WorkerSocket {
    constructor(url: string, protocols: string | string[] = []) {
      super(url, typeof protocols === "string" ? [protocols] : protocols, client);
    }
  };
}

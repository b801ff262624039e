/** The one worker of a page: has the sockets, decodes and paints their frames, and encodes what a camera captures. */

import { decodeFrame } from "../wire.js";
import type { Frame } from "../types.js";
import type { FromWorker, Painted, ToWorker } from "./messages.js";
import { Tile, WorkerStream } from "./worker-stream.js";
import { WorkerCapture } from "./worker-capture.js";

interface Scope {
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
}

interface Socket {
  readonly client: number;
  readonly socket: WebSocket;
  /** When the page was last informed that something arrived. */
  toldAt: number;
}

/** Interval, in ms, at which the page is informed of what was painted, and that a socket with only frames is alive. */
const NOTES_MS = 100;
const ALIVE_MS = 1_000;

const scope = globalThis as unknown as Scope;
const sockets = new Map<number, Socket>();
const streams = new Map<string, WorkerStream>();
const streamOfTile = new Map<number, WorkerStream>();
const canvases = new Map<number, OffscreenCanvas>();
const captures = new Map<number, WorkerCapture>();
let notes: ReturnType<typeof setTimeout> | undefined;

function post(message: FromWorker, transfer: Transferable[] = []): void {
  scope.postMessage(message, transfer);
}

function tell(): void {
  notes = undefined;
  const painted: Painted[] = [];
  for (const stream of streams.values()) {
    const note = stream.take();
    if (note !== undefined) painted.push(note);
  }
  if (painted.length > 0) post({ type: "painted", painted });
}

function keyOf(client: number, streamId: string): string {
  return `${client}/${streamId}`;
}

function streamFor(client: number, streamId: string): WorkerStream {
  const key = keyOf(client, streamId);
  let stream = streams.get(key);
  if (stream === undefined) {
    stream = new WorkerStream(client, streamId, (isNews) => {
      if (isNews) {
        clearTimeout(notes);
        tell();
      } else {
        notes ??= setTimeout(tell, NOTES_MS);
      }
    });
    streams.set(key, stream);
  }
  return stream;
}

function dropUnused(stream: WorkerStream): void {
  if (stream.tiles.size === 0) {
    stream.end();
    streams.delete(keyOf(stream.client, stream.streamId));
  }
}

function open(number: number, client: number, url: string, protocols: string[]): void {
  let socket: WebSocket;
  try {
    socket = new WebSocket(url, protocols);
  } catch (error) {
    post({ type: "failed", socket: number });
    post({ type: "closed", socket: number, code: 1006, reason: String(error), wasClean: false });
    return;
  }
  const entry: Socket = { client, socket, toldAt: 0 };
  sockets.set(number, entry);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => post({ type: "opened", socket: number, protocol: socket.protocol, extensions: socket.extensions });
  socket.onerror = () => post({ type: "failed", socket: number });
  socket.onclose = ({ code, reason, wasClean }) => {
    sockets.delete(number);
    post({ type: "closed", socket: number, code, reason, wasClean });
  };
  socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
    if (typeof data === "string" || !show(entry, data)) {
      post({ type: "message", socket: number, data }, typeof data === "string" ? [] : [data]);
      return;
    }
    const now = performance.now();
    if (now - entry.toldAt >= ALIVE_MS) {
      entry.toldAt = now;
      post({ type: "message", socket: number, data: JSON.stringify({ type: "ping", timestamp: Date.now() }) });
    }
  };
}

/** Show a frame here if a tile shows its stream. Returns whether the page does not need it. */
function show({ client, socket }: Socket, data: ArrayBuffer): boolean {
  const frame = decodeFrame(data, 0);
  const stream = frame && streams.get(keyOf(client, frame.streamId));
  if (stream === undefined || stream.tiles.size === 0) return false;
  const { frameId, timestamp, streamId, bytes } = frame as Frame;
  stream.show({ frameId, timestamp, picture: stream.copy ? bytes.slice() : bytes }, (shown) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "ack", streamId, frameId: shown }));
  });
  return !stream.copy;
}

function addTile(message: ToWorker & { type: "tile" }): void {
  const { tile, client, streamId, canvas = canvases.get(tile), wish } = message;
  if (canvas === undefined) return;
  canvases.set(tile, canvas);
  const stream = streamFor(client, streamId);
  stream.tiles.set(tile, new Tile(canvas, wish));
  streamOfTile.set(tile, stream);
  stream.repaint();
}

function removeTile(tile: number): void {
  const stream = streamOfTile.get(tile);
  streamOfTile.delete(tile);
  if (stream !== undefined) {
    stream.tiles.delete(tile);
    dropUnused(stream);
  }
}

function setWish({ tile, wish }: ToWorker & { type: "wish" }): void {
  const stream = streamOfTile.get(tile);
  const shown = stream?.tiles.get(tile);
  if (stream !== undefined && shown !== undefined) {
    shown.wish = wish;
    stream.repaint();
  }
}

function takeMessage(message: ToWorker): void {
  switch (message.type) {
    case "open":
      return open(message.socket, message.client, message.url, message.protocols);
    case "send": {
      const entry = sockets.get(message.socket);
      if (entry?.socket.readyState !== WebSocket.OPEN) return;
      entry.socket.send(message.data);
      return post({ type: "sent", socket: message.socket, bufferedAmount: entry.socket.bufferedAmount });
    }
    case "close": {
      const socket = sockets.get(message.socket)?.socket;
      if (socket === undefined) return;
      socket.onmessage = null; // a dead network may take minutes to close
      return socket.close(message.code, message.reason);
    }
    case "tile":
      return addTile(message);
    case "wish":
      return setWish(message);
    case "untile":
      return removeTile(message.tile);
    case "forget":
      removeTile(message.tile);
      canvases.delete(message.tile);
      return;
    case "copy": {
      const stream = streams.get(keyOf(message.client, message.streamId));
      if (stream !== undefined) stream.copy = message.copy;
      return;
    }
    case "show": {
      const { client, streamId, frameId, timestamp, picture } = message;
      return streamFor(client, streamId).show({ frameId, timestamp, picture }, (shown) => {
        post({ type: "shown", client, streamId, frameId: shown });
      });
    }
    case "picture": {
      const last = streamOfTile.get(message.tile)?.last;
      return post({ type: "picture", tile: message.tile, blob: last && new Blob([last.picture]) });
    }
    case "capture": {
      const { capture, frames, encoding } = message;
      captures.set(capture, new WorkerCapture(capture, frames, encoding, post));
      return;
    }
    case "encode":
      return captures.get(message.capture)?.set(message.encoding, message.room);
    case "uncapture":
      captures.get(message.capture)?.end();
      captures.delete(message.capture);
      return;
  }
}

scope.onmessage = ({ data }) => takeMessage(data);
post({
  type: "ready",
  abilities: {
    paints: typeof OffscreenCanvas !== "undefined" && typeof createImageBitmap !== "undefined",
    encodes: typeof OffscreenCanvas !== "undefined" && "convertToBlob" in OffscreenCanvas.prototype,
  },
});

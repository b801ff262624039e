/** Frames as bytes: the binary message, base64, codecs by their first bytes. Pure. */

import type { Frame } from "./types.js";

/** Magic, version 1, kind 1 (a frame), no flags. */
const HEADER = 0x57010100;
const HEAD = 18;
const CODECS = ["opaque", "jpeg", "png", "webp"] as const;
export type Codec = (typeof CODECS)[number];
const mimeOf = (codec: Codec): string => (codec === "opaque" ? "application/octet-stream" : `image/${codec}`);

/** Return the codec that the first bytes of a picture identify. */
export function codecOf(picture: Uint8Array): Codec {
  if (picture[0] === 0xff && picture[1] === 0xd8) return "jpeg";
  if (picture[0] === 0x89 && picture[1] === 0x50) return "png";
  return picture[0] === 0x52 && picture[8] === 0x57 && picture[9] === 0x45 ? "webp" : "opaque";
}

/** Return a frame of a camera as a binary message; the stream is the socket's own, the server numbers it. */
export function encodeFrame(picture: Uint8Array, timestamp: number, codec: Codec): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(HEAD + picture.byteLength);
  const view = new DataView(message.buffer);
  view.setUint32(0, HEADER);
  view.setUint32(8, timestamp / 2 ** 32); // truncated by setUint32
  view.setUint32(12, timestamp % 2 ** 32);
  view.setUint8(16, CODECS.indexOf(codec));
  message.set(picture, HEAD);
  return message;
}

/** Return the frame of a binary message; undefined: it is none. */
export function decodeFrame(data: ArrayBuffer, receivedAt: number): Frame | undefined {
  if (data.byteLength < HEAD) return undefined;
  const view = new DataView(data);
  if ((view.getUint32(0) & ~0xff) !== HEADER) return undefined;
  const at = HEAD + view.getUint8(17);
  if (data.byteLength < at) return undefined;
  const bytes = new Uint8Array(data, at);
  const codec = CODECS[view.getUint8(16)] ?? "opaque";
  return {
    streamId: String.fromCharCode(...new Uint8Array(data, HEAD, at - HEAD)),
    frameId: view.getUint32(4),
    timestamp: view.getUint32(8) * 2 ** 32 + view.getUint32(12),
    receivedAt,
    bytes,
    mime: mimeOf(codec),
  };
}

/** Return the frame of a JSON message; undefined: its picture cannot be decoded. */
export function frameOfMessage(message: Readonly<Record<string, unknown>>, receivedAt: number): Frame | undefined {
  const { streamId, frameId, timestamp, data } = message;
  if (typeof streamId !== "string" || typeof frameId !== "number" || typeof data !== "string") return undefined;
  const bytes = bytesOfBase64(data);
  if (bytes === undefined) return undefined;
  return { streamId, frameId, timestamp: Number(timestamp), receivedAt, bytes, mime: mimeOf(codecOf(bytes)), message };
}

/** Return the bytes of base64 text, with or without a `data:` prefix; undefined: it is not base64. */
export function bytesOfBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    const raw = atob(text.startsWith("data:") ? text.slice(text.indexOf(",") + 1) : text);
    const bytes = new Uint8Array(raw.length);
    for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
    return bytes;
  } catch {
    return undefined;
  }
}

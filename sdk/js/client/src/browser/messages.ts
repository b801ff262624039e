/** The messages between the page and its worker. */

import type { Fit, Size } from "./geometry.js";

/** What the worker of this browser can do. */
export interface Abilities {
  /** Draws on the canvas of an element. */
  readonly paints: boolean;
  /** Makes JPEGs. */
  readonly encodes: boolean;
}

/** How a tile wants its pictures. */
export interface Wish {
  /** Device pixels of the element; undefined: as the camera sent them. */
  readonly box: Size | undefined;
  readonly fit: Fit;
}

/** How a captured video is encoded now. */
export interface Encoding {
  /** Pictures a second; 0: nothing is encoded. */
  readonly fps: number;
  /** 0 to 1. */
  readonly quality: number;
  /** Longest side, in pixels. */
  readonly maxSide: number;
}

export type ToWorker =
  | { readonly type: "open"; readonly socket: number; readonly client: number; readonly url: string; readonly protocols: string[] }
  | { readonly type: "send"; readonly socket: number; readonly data: string | ArrayBuffer | Blob }
  | { readonly type: "close"; readonly socket: number; readonly code: number | undefined; readonly reason: string | undefined }
  | { readonly type: "tile"; readonly tile: number; readonly client: number; readonly streamId: string; readonly canvas: OffscreenCanvas | undefined; readonly wish: Wish }
  | { readonly type: "wish"; readonly tile: number; readonly wish: Wish }
  | { readonly type: "untile"; readonly tile: number }
  | { readonly type: "forget"; readonly tile: number }
  | { readonly type: "copy"; readonly client: number; readonly streamId: string; readonly copy: boolean }
  | { readonly type: "show"; readonly client: number; readonly streamId: string; readonly frameId: number; readonly timestamp: number; readonly picture: Uint8Array<ArrayBuffer> }
  | { readonly type: "picture"; readonly tile: number }
  | { readonly type: "capture"; readonly capture: number; readonly frames: ReadableStream<VideoFrame>; readonly encoding: Encoding }
  | { readonly type: "encode"; readonly capture: number; readonly encoding: Encoding; readonly room: boolean }
  | { readonly type: "uncapture"; readonly capture: number };

/** What was shown of one stream since the last note. */
export interface Painted {
  readonly client: number;
  readonly streamId: string;
  /** Frames that were painted. */
  readonly count: number;
  /** Frames that gave way to a newer one. */
  readonly replaced: number;
  /** Frames that were no picture. */
  readonly broken: number;
  readonly frameId: number;
  /** Of the newest, by the camera's clock, and when it was painted; ms since the epoch. */
  readonly timestamp: number;
  readonly at: number;
  /** Size of the newest picture as the camera sent it. */
  readonly size: Size | undefined;
}

export type FromWorker =
  | { readonly type: "ready"; readonly abilities: Abilities }
  | { readonly type: "opened"; readonly socket: number; readonly protocol: string; readonly extensions: string }
  | { readonly type: "message"; readonly socket: number; readonly data: string | ArrayBuffer }
  | { readonly type: "sent"; readonly socket: number; readonly bufferedAmount: number }
  | { readonly type: "failed"; readonly socket: number }
  | { readonly type: "closed"; readonly socket: number; readonly code: number; readonly reason: string; readonly wasClean: boolean }
  | { readonly type: "painted"; readonly painted: readonly Painted[] }
  | { readonly type: "shown"; readonly client: number; readonly streamId: string; readonly frameId: number }
  | { readonly type: "picture"; readonly tile: number; readonly blob: Blob | undefined }
  | { readonly type: "encoded"; readonly capture: number; readonly data: ArrayBuffer; readonly at: number; readonly size: Size }
  | { readonly type: "ended"; readonly capture: number; readonly reason: string };

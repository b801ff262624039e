/** watchout's client for browsers, Node, Bun, Deno and React Native. */

export { Camera } from "./camera.js";
export { WatchoutError, meaningOfClose } from "./errors.js";
export type { ClientErrorCode, CloseMeaning } from "./errors.js";
export type { Share } from "./http.js";
export type * from "./messages.js";
export { reactNativePlatform } from "./platform.js";
export type {
  Alert,
  AlertOptions,
  AlertQuery,
  CameraEvents,
  CameraOptions,
  Clock,
  ConnectionState,
  Frame,
  Platform,
  SendOptions,
  SocketConstructor,
  SocketLike,
  StateEvent,
  StreamSummary,
  TokenReason,
  TokenSource,
  ViewEvents,
  ViewOptions,
  ViewStatus,
  WatchoutEvents,
  WatchoutOptions,
} from "./types.js";
export { View } from "./view.js";
export { Watchout } from "./watchout.js";
export { codecOf, decodeFrame, encodeFrame } from "./wire.js";

/** `@watchout/client/browser`: the client with its sockets in a worker, pictures on a canvas, video of the device. */

export * from "../index.js";
export { Watchout } from "./watchout.js";
export {
  attach,
  type AttachOptions,
  type Attachment,
  type Detail,
  type TileState,
  type TileStatus,
} from "./attach.js";
export { capture, type Capture, type CaptureOptions, type CaptureState, type CaptureStatus } from "./capture.js";
export { MediaError, openMedia, type MediaFault } from "./media.js";
export { setWorkerUrl } from "./page-worker.js";

"use client";

/** `@watchout/react`: live views, alerts and this device as a camera. */

export { WatchoutProvider, useWatchout, type WatchoutProviderProps } from "./provider.js";
export {
  useAlerts,
  useConnection,
  useStream,
  useStreams,
  type AlertsOptions,
  type ShownAlert,
  type StreamsResult,
} from "./hooks.js";
export type { StreamState } from "./stream-store.js";
export { LiveView, type LiveViewProps } from "./live-view.js";
export { CameraPublisher, type CameraPublisherProps, type PublisherState, type PublisherStatus } from "./camera-publisher.js";

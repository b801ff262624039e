"use client";

import { useEffect, useRef, useState, type CSSProperties, type ReactNode } from "react";
import { capture, MediaError, openMedia, type CaptureStatus, type MediaFault } from "@watchout/client/browser";
import { useWatchout } from "./provider.js";

/** State of the publisher; `refused`: the server has ended it (taken over, not permitted, signed out). */
export type PublisherState = CaptureStatus["state"] | "opening" | "refused" | MediaFault;

export interface PublisherStatus {
  readonly state: PublisherState;
  /** Text for users: why the camera cannot be opened or used, and what to do. */
  readonly hint?: string;
  /** The stream's id, once it is known. */
  readonly streamId?: string;
  readonly capture?: CaptureStatus;
}

export interface CameraPublisherProps {
  /** Id of the stream; without one the server makes an id, which `onStatus` reports. */
  readonly streamId?: string;
  /** Shown to viewers: `deviceName`, anything; the value of the first render holds. */
  readonly info?: Readonly<Record<string, unknown>>;
  /** Of `getUserMedia`; the value of the first render holds. */
  readonly constraints?: MediaStreamConstraints;
  /** Best quality of the JPEGs, 0 to 1. Default 0.8. */
  readonly quality?: number;
  /** Longest side of a picture, in pixels. Default 1280. */
  readonly maxWidth?: number;
  readonly maxFps?: number;
  /** Whether the camera's picture is shown here. Default true. */
  readonly preview?: boolean;
  readonly className?: string;
  readonly style?: CSSProperties;
  readonly onStatus?: (status: PublisherStatus) => void;
  /** Over the preview, in place of the short text of the state. */
  readonly children?: ReactNode | ((status: PublisherStatus) => ReactNode);
}

const OPENING: PublisherStatus = { state: "opening" };

/** This device as a camera, while it is mounted. */
export function CameraPublisher(props: CameraPublisherProps): ReactNode {
  const { streamId, quality, maxWidth, maxFps, preview = true, className, style, children } = props;
  const client = useWatchout();
  const video = useRef<HTMLVideoElement>(null);
  const latest = useRef(props);
  useEffect(() => {
    latest.current = props;
  });
  const [status, setStatus] = useState<PublisherStatus>(OPENING);

  useEffect(() => {
    let close = (): void => undefined;
    let isOver = false;
    const tell = (next: PublisherStatus): void => {
      if (isOver) return;
      setStatus((before) => (before.state === next.state && before.streamId === next.streamId ? before : next));
      latest.current.onStatus?.(next);
    };
    const begin = async (): Promise<void> => {
      tell(OPENING);
      const { constraints, info } = latest.current;
      let media: MediaStream;
      try {
        media = await openMedia(constraints);
      } catch (error) {
        if (error instanceof MediaError) tell({ state: error.fault, hint: error.message });
        else throw error;
        return;
      }
      if (isOver) {
        for (const track of media.getTracks()) track.stop();
        return;
      }
      if (video.current !== null) video.current.srcObject = media;
      const camera = client.camera({ ...(streamId === undefined ? {} : { streamId }), ...(info === undefined ? {} : { info }) });
      const chosen = Object.fromEntries(Object.entries({ quality, maxWidth, maxFps }).filter(([, value]) => value !== undefined));
      const made = capture(camera, media, chosen);
      camera.on("state", ({ state, reason }) => {
        if (state === "closed") tell({ state: "refused", ...(reason === undefined ? {} : { hint: reason.message }) });
      });
      made.on("status", (now) => {
        if (camera.state.state === "closed") return;
        const id = camera.streamId;
        tell({ state: now.state, capture: now, ...(id === undefined ? {} : { streamId: id }) });
      });
      close = () => {
        made.close();
        camera.close();
        if (video.current !== null) video.current.srcObject = null;
      };
    };
    void begin();
    return () => {
      isOver = true;
      close();
    };
  }, [client, streamId, quality, maxWidth, maxFps]);

  return (
    <div className={className} style={{ position: "relative", ...style }} data-watchout-state={status.state}>
      {preview && <video ref={video} muted autoPlay playsInline aria-label="preview of this camera" style={{ display: "block", width: "100%" }} />}
      {typeof children === "function" ? children(status) : (children ?? <p role="status">{status.hint ?? status.state}</p>)}
    </div>
  );
}

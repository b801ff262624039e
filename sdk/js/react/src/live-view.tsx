"use client";

import { useEffect, useRef, useState, type CSSProperties, type ReactNode } from "react";
import { attach, type Attachment, type TileStatus } from "@watchout/client/browser";
import { useWatchout } from "./provider.js";
import { storeOf } from "./stream-store.js";

export interface LiveViewProps {
  /** Id of the stream. */
  readonly id: string;
  /** How the picture fills its box: `contain` (default) shows all of it, `cover` fills the box. */
  readonly fit?: "contain" | "cover";
  /** Highest rate, in pictures per second. Default: every frame. */
  readonly maxFps?: number;
  /** `native`: as many pixels as the camera sent, for zoom. Default `shown`. */
  readonly detail?: "shown" | "native";
  /** A picture older than this is stale, in ms. Default 3000. */
  readonly staleAfterMs?: number;
  /** Name for screen readers. Default: the id. */
  readonly label?: string;
  readonly className?: string;
  readonly style?: CSSProperties;
  /** Called when the state changes, and about once a second. */
  readonly onStatus?: (status: TileStatus) => void;
  /** Over the picture, in place of the short text that says why it is not live; `null` for none. */
  readonly children?: ReactNode | ((status: TileStatus | undefined) => ReactNode);
}

const BOX: CSSProperties = { position: "relative", overflow: "hidden" };
const TEXT: CSSProperties = {
  position: "absolute",
  insetInlineStart: "0.5em",
  insetBlockEnd: "0.5em",
  padding: "0.1em 0.5em",
  borderRadius: "0.3em",
  background: "rgb(0 0 0 / 70%)",
  color: "#fff",
  font: "0.8rem/1.4 system-ui, sans-serif",
};

/** A live stream: shows the newest picture, and marks it when it is old. */
export function LiveView(props: LiveViewProps): ReactNode {
  const { id, fit = "contain", maxFps, detail = "shown", staleAfterMs, label = id, className, style, children } = props;
  const client = useWatchout();
  const box = useRef<HTMLDivElement>(null);
  const attachment = useRef<Attachment>(undefined);
  const onStatus = useRef(props.onStatus);
  const [status, setStatus] = useState<TileStatus>();
  useEffect(() => {
    onStatus.current = props.onStatus;
  });

  useEffect(() => {
    const parent = box.current;
    if (parent === null) return undefined;
    const canvas = document.createElement("canvas"); // for this mount only: a canvas that was given to a worker cannot be taken back
    canvas.style.cssText = "display: block; width: 100%; height: 100%";
    parent.prepend(canvas);
    const view = client.view(id, maxFps === undefined ? {} : { maxFps });
    const store = storeOf(client, id);
    const made = attach(view, canvas, { ownsCanvas: true, ...(staleAfterMs === undefined ? {} : { staleAfterMs }) });
    attachment.current = made;
    made.on("status", (next) => {
      store.show(made, next);
      setStatus((before) => (looksTheSame(before, next) ? before : next));
      onStatus.current?.(next);
    });
    return () => {
      attachment.current = undefined;
      made.close();
      view.close();
      store.show(made, undefined);
      canvas.remove();
      setStatus(undefined);
    };
  }, [client, id, maxFps, staleAfterMs]);

  useEffect(() => {
    const canvas = box.current?.querySelector("canvas");
    if (canvas) canvas.style.objectFit = fit;
  }, [fit, client, id, maxFps, staleAfterMs]);
  useEffect(() => {
    if (attachment.current !== undefined) attachment.current.detail = detail;
  }, [detail, client, id, maxFps, staleAfterMs]);

  const state = status?.state ?? "waiting";
  const isOld = state === "stale" || (state === "offline" && status?.frameId !== null);
  return (
    <div
      ref={box}
      role="img"
      aria-label={`${label}: ${sayState(status)}`}
      className={className}
      data-watchout-state={state}
      style={{ ...BOX, ...(isOld ? { filter: "grayscale(1)" } : {}), ...style }}
    >
      {typeof children === "function" ? children(status) : children !== undefined ? children : state !== "live" && <span style={TEXT}>{sayState(status)}</span>}
    </div>
  );
}

/** Whether two states look the same: the age is shown in whole seconds, and only while the picture is old. */
function looksTheSame(before: TileStatus | undefined, next: TileStatus): boolean {
  if (before?.state !== next.state || before.width !== next.width || before.height !== next.height) return false;
  return next.state === "live" || seconds(before) === seconds(next);
}

function seconds({ ageMs }: TileStatus): number | null {
  return ageMs === null ? null : Math.round(ageMs / 1_000);
}

function sayState(status: TileStatus | undefined): string {
  switch (status?.state) {
    case "live":
      return "live";
    case "stale":
      return `${seconds(status)} s old`;
    case "offline":
      return "camera offline";
    case "paused":
      return "paused";
    case "forbidden":
      return "not your stream";
    case "closed":
      return "closed";
    default:
      return "waiting for the camera";
  }
}

/** The picture of one stream on a canvas, with its state as text. */

import { attach, type Attachment, type TileStatus } from "@watchout/client/browser";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell";
import { Icon, type IconName } from "./icons";
import type { Live } from "./live";
import { milliseconds, rate } from "./pure/format";
import { lookOf, NO_TILE, sentence, type Look } from "./pure/words";

const ICONS: Record<Look, IconName> = {
  live: "live", waiting: "wait", stale: "warn", idle: "wait", gone: "off", forbidden: "lock", paused: "wait",
};

export interface PictureProps {
  live: Live;
  id: string;
  /** Most frames per second; null: all. */
  maxFps: number | null;
  /** Called with the attachment, for zoom and snapshots. */
  onAttached?: (attachment: Attachment | null) => void;
  onStatus?: (status: TileStatus | null, look: Look) => void;
  children?: ComponentChildren;
}

/** How late the newest picture of a slow view may be before it is stale, in ms. */
function staleAfterMs(maxFps: number | null): number {
  return maxFps === null || maxFps >= 1 ? 3000 : 3000 / maxFps;
}

/** Shows the stream's pictures as long as it is part of the page. */
export function Picture({ live, id, maxFps, onAttached, onStatus, children }: PictureProps) {
  const frame = useRef<HTMLDivElement>(null);
  const connected = useCell(live.connection).state === "online";
  const [status, setStatus] = useState<TileStatus | null>(null);
  const denied = useCell(live.denied).get(id);
  const refused = denied === "frames" || denied === "both";
  const seen = refused ? "forbidden" : lookOf(status ?? NO_TILE, connected);
  const look = seen === "forbidden" && live.isTrying(id) ? "waiting" : seen;
  const told = useRef(onStatus);
  told.current = onStatus;
  useEffect(() => {
    if (refused) return;
    // The canvas belongs to this attachment: one that was given to the worker cannot be used again.
    const canvas = document.createElement("canvas");
    canvas.style.width = "100%";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Picture of ${id}`);
    frame.current?.prepend(canvas);
    const view = live.watch(id, maxFps);
    const attachment = attach(view, canvas, {
      ownsCanvas: true,
      staleAfterMs: staleAfterMs(maxFps),
      onStatus: setStatus,
    });
    onAttached?.(attachment);
    return () => {
      onAttached?.(null);
      attachment.close();
      view.close();
      canvas.remove();
    };
  }, [live, id, maxFps, denied]);
  useEffect(() => {
    if (status !== null || refused) told.current?.(status, look);
  }, [status, look]);
  const words = sentence(look, status?.ageMs ?? null);
  return (
    <div class="picture" ref={frame} data-look={look} data-frame={status?.frameId ?? ""}>
      {look !== "live" && look !== "paused" && (
        <p class="veil">
          <Icon name={ICONS[look]} size={26} />
          <span>{words}</span>
        </p>
      )}
      {children}
    </div>
  );
}

/** Rate and age as short text; the rate is known after a second. */
export function Rates({ status }: { status: TileStatus | null }) {
  if (status === null || status.ageMs === null) return null;
  return (
    <span class="rates">
      {status.fps > 0 && `${rate(status.fps)} fps · `}
      {milliseconds(status.ageMs)}
    </span>
  );
}

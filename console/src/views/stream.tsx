/** One stream: its picture with zoom, its numbers, and its alerts. */

import type { Attachment, TileStatus } from "@watchout/client/browser";
import { useEffect, useRef, useState } from "preact/hooks";
import { useCell, useNow } from "../cell";
import { Icon } from "../icons";
import { Latencies } from "../latency";
import type { Live } from "../live";
import { ago, clock, milliseconds, plural, rate } from "../pure/format";
import type { Latency } from "../pure/latency";
import { DROPS, readMetrics, sum } from "../pure/metrics";
import { formatRoute, HOME } from "../pure/route";
import type { Look } from "../pure/words";
import * as zooming from "../pure/zoom";
import { Picture } from "../tile";
import { Chip, Facts, Notice, say, useKeys } from "../ui";
import { STATS_KEY } from "./health";

export function StreamView({ live, id, canShare }: { live: Live; id: string; canShare: boolean }) {
  const [status, setStatus] = useState<TileStatus | null>(null);
  const [look, setLook] = useState<Look>("waiting");
  const [saving, setSaving] = useState(false);
  const attachment = useRef<Attachment | null>(null);
  const stage = useRef<HTMLDivElement>(null);
  const { rows } = useCell(live.streams);
  const row = rows.find((each) => each.id === id);

  const snapshot = async () => {
    const blob = (await attachment.current?.snapshot()) ?? (await live.api.picture(id).catch(() => null))?.blob;
    if (!blob) return say("There is no picture to save yet.", true);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${id.replace(/[^\w.-]/g, "_")}-${new Date().toISOString().replace(/[:.]/g, "-")}.${blob.type.split("/")[1] || "jpg"}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say("The picture is saved.");
  };
  const full = () => {
    if (document.fullscreenElement) void document.exitFullscreen();
    else void stage.current?.requestFullscreen?.();
  };
  const zoom = useZoom(stage, attachment);
  useKeys((event) => {
    const move: Record<string, [number, number]> = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    const by = move[event.key];
    if (event.key === "+" || event.key === "=") zoom.by(1.5);
    else if (event.key === "-") zoom.by(1 / 1.5);
    else if (event.key === "0") zoom.reset();
    else if (event.key === "f") full();
    else if (event.key === "s") void snapshot();
    else if (by !== undefined && zoom.now.scale > 1) zoom.pan(...by);
    else return;
    event.preventDefault();
  });

  if (look === "forbidden")
    return (
      <>
        <h1 class="hidden">{id}</h1>
        <Notice icon="lock" title="Not yours to view" tone="bad">
          <p>
            The stream <b>{id}</b> belongs to somebody else. Its owner can share it with you, or an operator can open
            streams to organizations (STREAM_ACCESS).
          </p>
          <a class="button" href={formatRoute(HOME)}>
            To your streams
          </a>
        </Notice>
      </>
    );
  const ratio = status?.width ? status.width / status.height : 4 / 3;
  return (
    <section class="stream">
      <div class="toolbar">
        <a class="quiet round button" href={formatRoute(HOME)} aria-label="Back to all streams">
          <Icon name="back" />
        </a>
        <h1>{id}</h1>
        <span class={`state ${look}`}>{look}</span>
        <span class="spring" />
        <button type="button" class="quiet" aria-pressed={saving} onClick={() => setSaving(!saving)}>
          <Icon name="leaf" /> Low bandwidth
        </button>
        <button type="button" class="quiet" onClick={() => void snapshot()}>
          <Icon name="snap" /> Snapshot
        </button>
        {canShare && (
          <a class="quiet button" href={formatRoute({ view: "sharing", stream: id })}>
            <Icon name="sharing" /> Share
          </a>
        )}
      </div>
      <div class="columns">
        <div class="left">
          <div class="stage" ref={stage} data-zoom={zoom.now.scale} style={{ "--ratio": ratio }}>
            <div
              class="sheet"
              style={{
                width: `${zoom.now.scale * 100}%`,
                left: `${(0.5 - zoom.now.scale / 2 + zoom.now.x) * 100}%`,
                top: `${(0.5 - zoom.now.scale / 2 + zoom.now.y) * 100}%`,
              }}
            >
              <Picture
                live={live}
                id={id}
                maxFps={saving ? 1 : null}
                onAttached={(made) => (attachment.current = made)}
                onStatus={(now, is) => (setStatus(now), setLook(is))}
              />
            </div>
            <div class="controls">
              <button type="button" aria-label="Zoom out" onClick={() => zoom.by(1 / 1.5)} disabled={zoom.now.scale <= 1}>
                <Icon name="minus" />
              </button>
              <button type="button" title="Whole picture" onClick={zoom.reset}>
                {Math.round(zoom.now.scale * 100)} %<span class="hidden">, show the whole picture</span>
              </button>
              <button type="button" aria-label="Zoom in" onClick={() => zoom.by(1.5)} disabled={zoom.now.scale >= zooming.MOST}>
                <Icon name="plus" />
              </button>
              <button type="button" aria-label="Full screen" onClick={full}>
                <Icon name="full" />
              </button>
            </div>
          </div>
          <Numbers live={live} id={id} status={status} saving={saving} />
        </div>
        <StreamAlerts live={live} id={id} />
      </div>
      {row === undefined && look !== "live" && (
        <p class="dim">This stream is not on your list now. When its camera comes, its picture appears here by itself.</p>
      )}
    </section>
  );
}

/** Zoom by wheel, fingers, mouse and keys. It transforms the element around the canvas, so it stays when pictures change. */
function useZoom(stage: { current: HTMLDivElement | null }, attachment: { current: Attachment | null }) {
  const [now, set] = useState<zooming.Zoom>(zooming.WHOLE);
  useEffect(() => {
    if (attachment.current) attachment.current.detail = now.scale > 1 ? "native" : "shown";
  }, [now.scale > 1]);
  useEffect(() => {
    const element = stage.current;
    if (element === null) return;
    const fingers = new Map<number, PointerEvent>();
    const share = (event: { clientX: number; clientY: number }): [number, number] => {
      const box = element.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
    };
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      const [x, y] = share(event);
      set((zoom) => zooming.zoomAt(zoom, Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), x, y));
    };
    const down = (event: PointerEvent) => {
      if ((event.target as HTMLElement).closest(".controls")) return;
      fingers.set(event.pointerId, event);
      element.setPointerCapture(event.pointerId);
    };
    const move = (event: PointerEvent) => {
      const before = fingers.get(event.pointerId);
      if (before === undefined) return;
      const [x0, y0] = share(before);
      const [x1, y1] = share(event);
      const other = [...fingers.values()].find((each) => each.pointerId !== event.pointerId);
      fingers.set(event.pointerId, event);
      if (other === undefined) {
        set((zoom) => (zoom.scale > 1 ? zooming.pan(zoom, x1 - x0, y1 - y0) : zoom));
      } else {
        const [x2, y2] = share(other);
        const factor = Math.hypot(x1 - x2, y1 - y2) / (Math.hypot(x0 - x2, y0 - y2) || 1);
        set((zoom) => zooming.zoomAt(zoom, factor, (x1 + x2) / 2, (y1 + y2) / 2));
      }
    };
    const up = (event: PointerEvent) => void fingers.delete(event.pointerId);
    const twice = (event: MouseEvent) => {
      if ((event.target as HTMLElement).closest(".controls")) return;
      const [x, y] = share(event);
      set((zoom) => (zoom.scale > 1 ? zooming.WHOLE : zooming.zoomAt(zoom, 2.5, x, y)));
    };
    element.addEventListener("wheel", wheel, { passive: false });
    element.addEventListener("pointerdown", down);
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", up);
    element.addEventListener("pointercancel", up);
    element.addEventListener("dblclick", twice);
    return () => {
      element.removeEventListener("wheel", wheel);
      element.removeEventListener("pointerdown", down);
      element.removeEventListener("pointermove", move);
      element.removeEventListener("pointerup", up);
      element.removeEventListener("pointercancel", up);
      element.removeEventListener("dblclick", twice);
    };
  }, [stage.current]);
  return {
    now,
    by: (factor: number) => set((zoom) => zooming.zoomAt(zoom, factor, 0, 0)),
    pan: (dx: number, dy: number) => set((zoom) => zooming.pan(zoom, dx, dy)),
    reset: () => set(zooming.WHOLE),
  };
}

function Numbers({ live, id, status, saving }: { live: Live; id: string; status: TileStatus | null; saving: boolean }) {
  const { rows } = useCell(live.streams);
  const now = useNow(1000);
  const row = rows.find((each) => each.id === id);
  const size = status?.width ? `${status.width} × ${status.height}` : "–";
  const facts: [string, string][] = [
    ["Shown", status ? `${rate(status.fps)} fps` : "–"],
    ["Age", status?.ageMs != null ? milliseconds(status.ageMs) : "–"],
    ["Camera", row ? `${rate(row.fps)} fps` : "–"],
    ["Size", size],
    ["Frame", status?.frameId != null ? String(status.frameId) : "–"],
    ["Viewers", row ? String(row.viewers) : "–"],
    ["Since", row?.startedAt ? ago(row.startedAt, now) : "–"],
  ];
  const info = Object.entries(row?.info ?? {}).slice(0, 8);
  return (
    <>
      <Facts of={facts} />
      {info.length > 0 && (
        <p class="dim info">
          {info.map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(" · ")}
        </p>
      )}
      <Drops live={live} status={status} fps={row?.fps ?? 0} saving={saving} />
      <StreamLatencies live={live} id={id} />
    </>
  );
}

/** How long the frames and alerts of the stream take, asked for while it is open. */
function StreamLatencies({ live, id }: { live: Live; id: string }) {
  const [found, setFound] = useState<Latency | null>(null);
  const [wanted, setWanted] = useState(false);
  useEffect(() => {
    if (!wanted) return;
    const ask = () => void live.api.streamLatency(id).then(setFound, () => {});
    ask();
    const timer = setInterval(ask, 3000);
    return () => clearInterval(timer);
  }, [wanted, live, id]);
  return (
    <details class="drops" onToggle={(event) => setWanted((event.currentTarget as HTMLDetailsElement).open)}>
      <summary>Latency</summary>
      <Latencies of={found} />
    </details>
  );
}

/** The dropped frames: of this view by reason, and those that the gateways dropped for all viewers. */
function Drops({ live, status, fps, saving }: { live: Live; status: TileStatus | null; fps: number; saving: boolean }) {
  const [all, setAll] = useState<[string, number][] | null>(null);
  const [wanted, setWanted] = useState(false);
  useEffect(() => {
    if (!wanted) return;
    let ended = false;
    const ask = async () => {
      const page = await live.api.metrics(sessionStorage.getItem(STATS_KEY)).catch(() => null);
      if (!ended && page !== null) {
        const metrics = readMetrics(page);
        setAll(DROPS.map(([name, why]): [string, number] => [why, sum(metrics, name)]).filter(([, count]) => count > 0));
      }
    };
    void ask();
    const timer = setInterval(() => void ask(), 5000);
    return () => ((ended = true), clearInterval(timer));
  }, [wanted, live]);
  const own: [string, string][] = [];
  if (status) {
    const less = fps > 0 ? Math.max(0, 1 - status.fps / fps) : 0;
    if (saving) own.push(["Low bandwidth", "one picture a second is asked for"]);
    else if (less > 0.2 && status.fps > 0 && status.state === "live")
      own.push(["Left out", `${Math.round(less * 100)} % of the camera's frames: the newest wins where network or page are slower`]);
    if (status.replaced) own.push(["Gave way", `${plural(status.replaced, "frame")} to a newer one before being painted here`]);
    if (status.broken) own.push(["Not pictures", plural(status.broken, "frame")]);
  }
  return (
    <div class="drops">
      {own.map(([name, text]) => (
        <p key={name}>
          <b>{name}</b> {text}
        </p>
      ))}
      <details onToggle={(event) => setWanted((event.currentTarget as HTMLDetailsElement).open)}>
        <summary>Frames dropped for all viewers, by reason</summary>
        {all === null ? (
          <p class="dim">Not known: the metrics are behind a token (see Health).</p>
        ) : all.length === 0 ? (
          <p class="dim">None.</p>
        ) : (
          <ul>
            {all.map(([why, count]) => (
              <li key={why}>
                <b>{count}</b> {why}
              </li>
            ))}
          </ul>
        )}
      </details>
    </div>
  );
}

function StreamAlerts({ live, id }: { live: Live; id: string }) {
  const { alerts } = useCell(live.alerts);
  const now = useNow(10_000);
  const own = alerts.filter((alert) => alert.streamId === id).slice(0, 50);
  useEffect(() => live.see(own), [own.length]);
  return (
    <aside class="side" aria-label={`Alerts of ${id}`}>
      <h2>Alerts</h2>
      {own.length === 0 && <p class="dim">None yet.</p>}
      <ul>
        {own.map((alert) => (
          <li key={alert.id}>
            <a href={formatRoute({ view: "alerts", severity: "low", stream: id, open: false, alert: alert.id })}>
              <Chip severity={alert.severity} /> <span>{alert.message}</span>
              <small>
                {clock(alert.timestamp, now)}
                {alert.acknowledged && " · acknowledged"}
              </small>
            </a>
          </li>
        ))}
      </ul>
    </aside>
  );
}

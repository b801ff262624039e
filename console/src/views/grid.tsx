/** All streams, or those that are chosen, as tiles with the aspect ratio of their pictures. */

import type { TileStatus } from "@watchout/client/browser";
import { useState } from "preact/hooks";
import { BASE } from "../api";
import { useCell, useNow } from "../cell";
import { Icon } from "../icons";
import type { Live } from "../live";
import { ago } from "../pure/format";
import { formatRoute, linkWith, SIZES, type Route } from "../pure/route";
import type { Look } from "../pure/words";
import { adjust } from "../router";
import { Picture, Rates } from "../tile";
import { Chip, Copy, Notice, Qr, Toggle } from "../ui";

type At = Extract<Route, { view: "live" }>;

/** Frames per second of a tile, and with the low-bandwidth switch. */
const GRID_FPS = 12;
const SAVING_FPS = 0.5;

export function LiveGrid({ live, at, by }: { live: Live; at: At; by: "token" | "share" | "ticket" | "cookie" }) {
  const { rows, known, fault } = useCell(live.streams);
  const [choosing, setChoosing] = useState(false);
  const ids = at.streams ?? rows.map((row) => row.id);
  const share = () => new URL(formatRoute(at), location.href).href;
  if (!known && fault === null)
    return (
      <>
        <h1 class="hidden">Live</h1>
        <Notice icon="wait" title="Looking for streams …" busy />
      </>
    );
  if (!known && fault !== null)
    return (
      <>
        <h1 class="hidden">Live</h1>
        <Notice icon="warn" title={fault.fault === "router" ? "The router is away" : "The streams cannot be listed now"} tone="bad">
          <p>{fault.message}</p>
          <p>It is tried again by itself.</p>
          <button type="button" onClick={() => live.refresh()}>
            Try now
          </button>
        </Notice>
      </>
    );
  if (!ids.length) return <Empty by={by} live={live} />;
  return (
    <section class="live" aria-label="Streams">
      <div class="toolbar">
        <h1>Live</h1>
        <span class="dim">
          {ids.length} of {Math.max(rows.length, ids.length)}
        </span>
        <span class="spring" />
        <fieldset class="segments small">
          <legend class="hidden">Size of the tiles</legend>
          {SIZES.map((size) => (
            <label key={size}>
              <input type="radio" name="size" checked={at.size === size} onChange={() => adjust({ ...at, size })} />
              <span>
                <span aria-hidden="true">{size[0]?.toUpperCase()}</span>
                <span class="hidden">{size}</span>
              </span>
            </label>
          ))}
        </fieldset>
        <Toggle icon="leaf" on={at.saving} set={(saving) => adjust({ ...at, saving })}>
          Low bandwidth
        </Toggle>
        <Toggle icon="live" on={choosing} set={setChoosing}>
          Choose
        </Toggle>
        <Copy text={share()} label="Copy layout" />
      </div>
      {choosing && <Chooser at={at} all={rows.map((row) => row.id)} />}
      <ul class={`grid ${at.size === "medium" && ids.length <= 2 ? "few" : at.size}`}>
        {ids.map((id) => (
          <Tile key={id} live={live} id={id} at={at} />
        ))}
      </ul>
    </section>
  );
}

function Chooser({ at, all }: { at: At; all: readonly string[] }) {
  const chosen = at.streams ?? all;
  const every = [...new Set([...all, ...chosen])];
  const set = (id: string, on: boolean) => {
    const streams = on ? [...chosen, id] : chosen.filter((each) => each !== id);
    adjust({ ...at, streams: streams.length && streams.length < every.length ? streams : null });
  };
  return (
    <fieldset class="chooser">
      <legend>Streams of this layout</legend>
      {every.map((id) => (
        <label key={id} class="tick">
          <input type="checkbox" checked={chosen.includes(id)} onChange={(event) => set(id, event.currentTarget.checked)} />
          <span>{id}</span>
        </label>
      ))}
      <button type="button" class="quiet" onClick={() => adjust({ ...at, streams: null })}>
        All
      </button>
    </fieldset>
  );
}

function Tile({ live, id, at }: { live: Live; id: string; at: At }) {
  const [status, setStatus] = useState<TileStatus | null>(null);
  const [look, setLook] = useState<Look>("waiting");
  const { rows } = useCell(live.streams);
  const { alerts, unseen } = useCell(live.alerts);
  const row = rows.find((each) => each.id === id);
  const ratio = status?.width ? status.width / status.height : 4 / 3;
  const newest = alerts.find((alert) => alert.streamId === id && unseen.has(`${id} ${alert.id}`));
  const name = typeof row?.info.deviceName === "string" ? row.info.deviceName : null;
  return (
    <li class="tile" data-stream={id} data-look={look} style={{ "--ratio": ratio }}>
      <Picture live={live} id={id} maxFps={at.saving ? SAVING_FPS : GRID_FPS} onStatus={(now, is) => (setStatus(now), setLook(is))} />
      <div class="caption">
        <span class={`dot ${look}`} aria-hidden="true" />
        <a href={formatRoute({ view: "stream", id })}>
          {id}
          {name && <span class="dim"> {name}</span>}
        </a>
        {newest && <Chip severity={newest.severity} />}
        <span class="spring" />
        {look === "live" ? <Rates status={status} /> : <LastSeen at={row?.lastFrameAt ?? null} />}
        {look === "gone" && row !== undefined && at.streams === null && (
          <button type="button" class="quiet round small" aria-label={`Take ${id} off the list`} onClick={() => live.forget(id)}>
            <Icon name="close" size={14} />
          </button>
        )}
        <FullScreen id={id} />
      </div>
    </li>
  );
}

function LastSeen({ at }: { at: number | null }) {
  const now = useNow(1000);
  return at === null ? null : <span class="rates">{ago(at, now)}</span>;
}

function FullScreen({ id }: { id: string }) {
  const full = (event: Event) => {
    const tile = (event.currentTarget as HTMLElement).closest(".tile");
    if (document.fullscreenElement) void document.exitFullscreen();
    else void tile?.requestFullscreen?.();
  };
  return (
    <button type="button" class="quiet round small" aria-label={`${id}: full screen`} title="Full screen" onClick={full}>
      <Icon name="full" size={15} />
    </button>
  );
}

/** Shown while there is no stream: how to publish one. */
function Empty({ by, live }: { by: "token" | "share" | "ticket" | "cookie"; live: Live }) {
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const socket = BASE.replace(/^http/, "ws").replace(/\/$/, "");
  const command = `watchout-ctl publish test --stream cam-1${local ? "" : ` --url ${socket}`}`;
  const camera = formatRoute({ view: "camera" });
  if (by === "ticket")
    return (
      <>
        <h1 class="hidden">Live</h1>
        <Notice icon="link" title="No stream is named">
          <p>A ticket is good for one connection, to the streams that its link names: #/stream/…?ticket=…</p>
        </Notice>
      </>
    );
  return (
    <>
      <h1 class="hidden">Live</h1>
      <Notice icon="camera" title="No stream yet">
        {by === "share" ? (
          <p>What was shared with you has no camera now. It appears here when it comes back.</p>
        ) : (
          <>
            <p>Publish one from a terminal:</p>
            <p class="command">
              <code>{command}</code> <Copy text={command} label="Copy command" />
            </p>
            <p>
              or <a href={camera}>with the camera of this device</a>
              {local ? "." : ", or with that of a phone:"}
            </p>
            {local ? (
              <p class="dim">
                <code>watchout-ctl addresses</code> prints the address for a phone, with a QR code.
              </p>
            ) : (
              <PhoneCode token={live.credential?.value ?? null} />
            )}
          </>
        )}
      </Notice>
    </>
  );
}

/** A QR code that opens the console's camera on a phone; one that also signs in only when the user asks for it. */
function PhoneCode({ token }: { token: string | null }) {
  const [signs, setSigns] = useState(false);
  const plain = new URL(formatRoute({ view: "camera" }), location.href).href;
  const link = signs && token !== null ? linkWith(location.href, "token", token, { view: "camera" }) : plain;
  return (
    <>
      <Qr text={link} label={signs ? "This console, signed in, for a phone" : "The address of this console, for a phone"} />
      {token !== null && (
        <label class="tick">
          <input type="checkbox" checked={signs} onChange={(event) => setSigns(event.currentTarget.checked)} />
          <span>Sign the phone in as me; show the code to nobody else</span>
        </label>
      )}
    </>
  );
}

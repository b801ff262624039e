/** This device as a camera: preview, demand, frames under way, and a panic button. */

import { capture, MediaError, openMedia, type Capture, type CaptureStatus } from "@watchout/client/browser";
import { useEffect, useRef, useState } from "preact/hooks";
import { useCell } from "../cell";
import { Icon } from "../icons";
import type { Live } from "../live";
import { bytes, plural, rate } from "../pure/format";
import { formatRoute, isStreamId, SEVERITIES, type Severity } from "../pure/route";
import { Facts, Notice, say } from "../ui";

interface Wish {
  stream: string;
  facing: "environment" | "user";
  maxFps: number;
  quality: number;
}

type Phase = { at: "choosing" } | { at: "asking" } | { at: "refused"; fault: string; message: string } | { at: "on"; wish: Wish; media: MediaStream };

/** What to do about each reason why there is no camera. */
const REMEDIES: Record<string, { title: string; text: string }> = {
  "insecure-context": {
    title: "Browsers open a camera only over HTTPS",
    text: "Set TLS_CERT and TLS_KEY of the gateway, or put a proxy with a certificate before it, and open this page over https://. On the machine itself http://localhost works, too.",
  },
  "permission-denied": {
    title: "The camera is not allowed",
    text: "Allow it for this page in the browser's settings of this site (the sign beside the address), then try again.",
  },
  "no-camera": { title: "This device has no camera", text: "Connect one, or open this page on a phone." },
  "camera-busy": { title: "The camera is in use", text: "Another program or tab has it: close that one, then try again." },
};

function defaultName(): string {
  const kept = sessionStorage.getItem("watchout.camera");
  if (kept && isStreamId(kept)) return kept;
  const kind = /iPhone|iPad/.test(navigator.userAgent) ? "iphone" : /Android/.test(navigator.userAgent) ? "android" : "browser";
  return `${kind}-${Math.random().toString(36).slice(2, 6)}`;
}

export function CameraView({ live }: { live: Live }) {
  const [phase, setPhase] = useState<Phase>(() =>
    isSecureContext ? { at: "choosing" } : { at: "refused", fault: "insecure-context", message: "" },
  );
  const [wish, setWish] = useState<Wish>(() => ({ stream: defaultName(), facing: "environment", maxFps: 15, quality: 0.8 }));
  const start = async (event: Event) => {
    event.preventDefault();
    if (!isStreamId(wish.stream)) return say("A stream id has 1 to 128 of A-Z a-z 0-9 _ . : -", true);
    sessionStorage.setItem("watchout.camera", wish.stream);
    setPhase({ at: "asking" });
    try {
      const media = await openMedia({ video: { facingMode: wish.facing, width: { ideal: 1280 }, height: { ideal: 720 } } });
      setPhase({ at: "on", wish, media });
    } catch (error) {
      if (!(error instanceof MediaError)) throw error;
      setPhase({ at: "refused", fault: error.fault, message: error.message });
    }
  };
  if (phase.at === "on")
    return <Publishing key={phase.wish.stream} live={live} wish={phase.wish} media={phase.media} stop={() => setPhase({ at: "choosing" })} />;
  if (phase.at === "asking")
    return (
      <>
        <h1 class="hidden">Camera</h1>
        <Notice icon="camera" title="Allow the camera" busy>
          <p>The browser asks whether this page may use it.</p>
        </Notice>
      </>
    );
  if (phase.at === "refused") {
    const remedy = REMEDIES[phase.fault];
    return (
      <>
        <h1 class="hidden">Camera</h1>
        <Notice icon={phase.fault === "permission-denied" ? "lock" : "off"} title={remedy?.title ?? "The camera cannot be opened"} tone="bad">
          <p>{remedy?.text ?? phase.message}</p>
          {isSecureContext && (
            <button type="button" onClick={() => setPhase({ at: "choosing" })}>
              Try again
            </button>
          )}
        </Notice>
      </>
    );
  }
  return (
    <section class="camera">
      <div class="toolbar">
        <h1>Camera</h1>
      </div>
      <form class="card" onSubmit={(event) => void start(event)}>
        <p>Publish what the camera of this device sees. Pictures are made only while somebody watches.</p>
        <label class="field">
          <span>Stream</span>
          <input value={wish.stream} spellcheck={false} autocapitalize="off" onInput={(event) => setWish({ ...wish, stream: event.currentTarget.value.trim() })} />
        </label>
        <fieldset class="segments">
          <legend>Which camera</legend>
          {(["environment", "user"] as const).map((facing) => (
            <label key={facing}>
              <input type="radio" name="facing" checked={wish.facing === facing} onChange={() => setWish({ ...wish, facing })} />
              <span>{facing === "environment" ? "Back" : "Front"}</span>
            </label>
          ))}
        </fieldset>
        <label class="field">
          <span>At most {wish.maxFps} pictures a second</span>
          <input type="range" min={1} max={30} value={wish.maxFps} onInput={(event) => setWish({ ...wish, maxFps: Number(event.currentTarget.value) })} />
        </label>
        <label class="field">
          <span>Quality {Math.round(wish.quality * 100)} %</span>
          <input type="range" min={30} max={95} value={wish.quality * 100} onInput={(event) => setWish({ ...wish, quality: Number(event.currentTarget.value) / 100 })} />
        </label>
        <button class="main">
          <Icon name="camera" /> Start
        </button>
      </form>
    </section>
  );
}

const STATES: Record<CaptureStatus["state"], string> = {
  starting: "Starting",
  sending: "On air",
  unwanted: "Ready: nobody watches, so nothing is sent",
  waiting: "Waiting for the gateway",
  hidden: "This browser sends nothing while its tab is hidden",
  ended: "The camera ended",
  closed: "Stopped",
};

function Publishing({ live, wish, media, stop }: { live: Live; wish: Wish; media: MediaStream; stop: () => void }) {
  const preview = useRef<HTMLVideoElement>(null);
  const [status, setStatus] = useState<CaptureStatus | null>(null);
  const [camera, setCamera] = useState<ReturnType<Live["client"]["camera"]> | null>(null);
  const [viewers, setViewers] = useState<number | null>(null);
  const [fault, setFault] = useState<{ code: string; message: string } | null>(null);
  const connection = useCell(live.connection);
  useEffect(() => {
    if (preview.current) preview.current.srcObject = media;
    const info = { deviceName: wish.stream, deviceType: "browser" };
    const made = live.client.camera({ streamId: wish.stream, info, alerts: false });
    made.on("demand", (demand) => setViewers(demand.viewers));
    made.on("error", (error) => setFault({ code: error.code, message: error.message }));
    made.on("state", ({ state, reason }) => {
      if (state === "closed" && reason !== undefined) setFault({ code: reason.code, message: reason.message });
      else if (state === "online") setFault(null);
    });
    const sending: Capture = capture(made, media, { quality: wish.quality, maxFps: wish.maxFps, onStatus: setStatus });
    setCamera(made);
    let awake: WakeLockSentinel | null = null;
    let ended = false;
    const stay = () => {
      if (document.hidden || ended) return;
      navigator.wakeLock?.request("screen").then(
        (lock) => (ended ? void lock.release() : (awake = lock)),
        () => undefined, // a low battery: the screen may go off
      );
    };
    stay();
    document.addEventListener("visibilitychange", stay);
    return () => {
      ended = true;
      document.removeEventListener("visibilitychange", stay);
      void awake?.release();
      sending.close();
      made.close();
    };
  }, [live, wish, media]);
  if (fault?.code === "STREAM_TAKEN_OVER" || fault?.code === "UNAUTHORIZED")
    return (
      <>
        <h1 class="hidden">Camera</h1>
        <Notice icon="lock" title={fault.code === "UNAUTHORIZED" ? "Not yours" : "Published elsewhere"} tone="bad">
          <p>
            {fault.code === "UNAUTHORIZED"
              ? `The stream ${wish.stream} belongs to somebody else, or you may not publish: choose another name.`
              : `Another device of yours publishes ${wish.stream} now.`}
          </p>
          <button type="button" onClick={stop}>
            Choose again
          </button>
        </Notice>
      </>
    );
  const state = status?.state ?? "starting";
  const facts: [string, string][] = [
    ["Viewers", viewers === null ? "–" : String(viewers)],
    ["Wanted", camera?.demand ? `${rate(camera.demand.fps)} fps` : "–"],
    ["Sent", status ? `${rate(status.fps)} fps` : "–"],
    ["Frames", status ? String(status.sent) : "–"],
    ["Picture", status?.width ? `${status.width} × ${status.height}` : "–"],
    ["Bytes", status?.bytes ? bytes(status.bytes) : "–"],
    ["Uplink", camera ? (camera.room ? "free" : "full") : "–"],
    ["Left out", camera ? plural(camera.counts.dropped, "frame") : "–"],
    ["Lowered", status?.sent ? (status.lowered ? `by ${plural(status.lowered, "step")} for a slow uplink` : "no") : "–"],
  ];
  return (
    <section class="camera on">
      <div class="toolbar">
        <h1>{wish.stream}</h1>
        <span class={`state ${state === "sending" ? "live" : "waiting"}`} role="status">
          {connection.state === "waiting" && state !== "sending" ? "Waiting for the gateway" : STATES[state]}
        </span>
        <span class="spring" />
        <a class="quiet button" href={formatRoute({ view: "stream", id: wish.stream })} target="_blank" rel="noopener">
          <Icon name="eye" /> Watch
        </a>
        <button type="button" onClick={stop}>
          Stop
        </button>
      </div>
      <div class="preview">
        <video ref={preview} autoplay muted playsinline aria-label="What the camera sees" />
      </div>
      {fault !== null && (
        <p class="reason" role="alert">
          {fault.message}
        </p>
      )}
      <Facts of={facts} />
      {camera !== null && <Panic send={(severity, message) => void camera.alert(severity, message)} />}
    </section>
  );
}

/** Sends an alert when it is pressed for a second, so that none is sent by accident. */
function Panic({ send }: { send: (severity: Severity, message: string) => void }) {
  const [severity, setSeverity] = useState<Severity>("critical");
  const [message, setMessage] = useState("");
  const [pressed, setPressed] = useState(false);
  useEffect(() => {
    if (!pressed) return;
    const timer = setTimeout(() => {
      setPressed(false);
      send(severity, message.trim() || "Help is needed here");
      navigator.vibrate?.(200);
      say("The alert is sent.");
    }, 1000);
    return () => clearTimeout(timer);
  }, [pressed]);
  const isKey = (event: KeyboardEvent) => event.key === " " || event.key === "Enter";
  return (
    <div class="panic">
      <label class="field">
        <span>Message</span>
        <input value={message} maxLength={500} placeholder="Help is needed here" onInput={(event) => setMessage(event.currentTarget.value)} />
      </label>
      <label class="field">
        <span>Severity</span>
        <select value={severity} onChange={(event) => setSeverity(event.currentTarget.value as Severity)}>
          {SEVERITIES.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      </label>
      <button
        type="button"
        class={`panic-button ${pressed ? "pressed" : ""}`}
        onPointerDown={() => setPressed(true)}
        onPointerUp={() => setPressed(false)}
        onPointerLeave={() => setPressed(false)}
        onPointerCancel={() => setPressed(false)}
        onKeyDown={(event) => isKey(event) && !event.repeat && setPressed(true)}
        onKeyUp={(event) => isKey(event) && setPressed(false)}
        onBlur={() => setPressed(false)}
        onContextMenu={(event) => event.preventDefault()}
      >
        <Icon name="warn" size={24} /> {pressed ? "Keep holding …" : "Hold to raise an alert"}
      </button>
    </div>
  );
}

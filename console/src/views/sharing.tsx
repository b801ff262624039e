/** Links with which people without an account can view one stream and nothing else. */

import { useCallback, useEffect, useState } from "preact/hooks";
import { ApiError, type Share } from "../api";
import { useCell, useNow } from "../cell";
import { Icon } from "../icons";
import type { Live } from "../live";
import { clock, span } from "../pure/format";
import { linkWith, type Route } from "../pure/route";
import { adjust } from "../router";
import { Copy, Notice, Qr, say } from "../ui";

const SPANS: readonly [number, string][] = [
  [900, "15 minutes"],
  [3600, "1 hour"],
  [28_800, "8 hours"],
  [86_400, "1 day"],
  [604_800, "1 week"],
];

export function SharingView({ live, at }: { live: Live; at: Extract<Route, { view: "sharing" }> }) {
  const { rows, known } = useCell(live.streams);
  const stream = at.stream ?? rows[0]?.id ?? null;
  return (
    <section class="sharing">
      <div class="toolbar">
        <h1>Sharing</h1>
        {stream !== null && (
          <label class="inline">
            <span class="hidden">Stream</span>
            <select value={stream} onChange={(event) => adjust({ view: "sharing", stream: event.currentTarget.value })}>
              {[...new Set([...rows.map((row) => row.id), stream])].map((id) => (
                <option key={id}>{id}</option>
              ))}
            </select>
          </label>
        )}
      </div>
      {stream === null ? (
        <Notice icon="sharing" title={known ? "No stream to share yet" : "Looking for streams …"} busy={!known}>
          {known && <p>A stream can be shared once it was published.</p>}
        </Notice>
      ) : (
        <Shares key={stream} live={live} stream={stream} />
      )}
    </section>
  );
}

function isOthers({ fault }: ApiError): boolean {
  return fault === "not-found" || fault === "forbidden";
}

function Shares({ live, stream }: { live: Live; stream: string }) {
  const [shares, setShares] = useState<Share[] | null>(null);
  const [fault, setFault] = useState<ApiError | null>(null);
  const [made, setMade] = useState<Share | null>(null);
  const [seconds, setSeconds] = useState(3600);
  const [alerts, setAlerts] = useState(false);
  const [busy, setBusy] = useState(false);
  const now = useNow(5000);
  const load = useCallback(async () => {
    try {
      setShares(await live.api.shares(stream));
      setFault(null);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setFault(error);
    }
  }, [live, stream]);
  useEffect(() => void load(), [load]);
  const create = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      setMade(await live.api.share(stream, seconds, alerts));
      await load();
    } catch (error) {
      say(`The link could not be made: ${(error as Error).message}`, true);
    } finally {
      setBusy(false);
    }
  };
  const end = async (share: Share) => {
    try {
      await live.api.endShare(stream, share.id);
      if (made?.id === share.id) setMade(null);
      say("The link is ended; whoever used it is out.");
    } catch (error) {
      say(`It could not be ended: ${(error as Error).message}`, true);
    }
    await load();
  };
  if (fault !== null && shares === null)
    return (
      <Notice icon={isOthers(fault) ? "lock" : "warn"} title={isOthers(fault) ? "Not yours to share" : "Links cannot be listed now"} tone="bad">
        <p>{isOthers(fault) ? "Only the user whose camera publishes a stream may share it." : fault.message}</p>
        <button type="button" onClick={() => void load()}>
          Try again
        </button>
      </Notice>
    );
  const link = made?.token ? linkWith(location.href, "share", made.token, { view: "stream", id: stream }) : null;
  const open = (shares ?? []).filter((share) => share.endsAt === null || share.endsAt > now);
  return (
    <div class="columns even">
      <form class="card" onSubmit={(event) => void create(event)}>
        <h2>New link</h2>
        <p class="dim">Whoever has the link sees this one stream until it ends. Nobody can publish or acknowledge with it.</p>
        <label class="field">
          <span>Valid for</span>
          <select value={seconds} onChange={(event) => setSeconds(Number(event.currentTarget.value))}>
            {SPANS.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label class="tick">
          <input type="checkbox" checked={alerts} onChange={(event) => setAlerts(event.currentTarget.checked)} />
          <span>With its alerts</span>
        </label>
        <button class="main" disabled={busy}>
          <Icon name="link" /> Make the link
        </button>
        {link !== null && (
          <div class="made" role="status">
            <Qr text={link} label={`Link to ${stream}`} />
            <p class="command">
              <code>{link}</code>
            </p>
            <Copy text={link} label="Copy link" />
            <p class="dim">It is shown only now. What stands behind the # is sent to no server.</p>
          </div>
        )}
      </form>
      <div class="card">
        <h2>Open links</h2>
        {shares === null ? (
          <p class="dim">Looking …</p>
        ) : open.length === 0 ? (
          <p class="dim">None.</p>
        ) : (
          <ul class="shares">
            {open.map((share) => (
              <li key={share.id}>
                <span>
                  <code>{share.id}</code>
                  <br />
                  <span class="dim">
                    {share.alerts ? "pictures and alerts" : "pictures"}
                    {share.createdAt !== null && `, since ${clock(share.createdAt, now)}`}
                    {share.endsAt !== null && `, ends in ${span(share.endsAt - now)}`}
                  </span>
                </span>
                <button type="button" class="danger" onClick={() => void end(share)} aria-label={`End link ${share.id}`}>
                  End
                </button>
              </li>
            ))}
          </ul>
        )}
      </div>
    </div>
  );
}

/** The list of alerts, with the picture of the frame that each refers to, and acknowledgement. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useCell, useNow } from "../cell";
import { Icon } from "../icons";
import type { Live } from "../live";
import { filtered, keyOf, neighbour, nextOpen, type Alert } from "../pure/alerts";
import { ago, clock } from "../pure/format";
import { formatRoute, SEVERITIES, type Route, type Severity } from "../pure/route";
import { AlertPictures } from "../pictures";
import { adjust } from "../router";
import { Chip, Copy, Notice, say, Toggle, useKeys } from "../ui";

type At = Extract<Route, { view: "alerts" }>;

export function AlertsView({ live, at }: { live: Live; at: At }) {
  const { alerts, unseen } = useCell(live.alerts);
  const known = useCell(live.alertsKnown);
  const fault = useCell(live.alertsFault);
  const now = useNow(1000); // ages are shown in seconds at first
  const pictures = useMemo(() => new AlertPictures(live.api), [live]);
  useEffect(() => () => pictures.clear(), [pictures]);
  const shown = filtered(alerts, at);
  const streams = [...new Set(alerts.map((alert) => alert.streamId))].sort();
  const byLink = at.alert === null ? undefined : alerts.find((alert) => alert.id === at.alert && (at.stream ?? alert.streamId) === alert.streamId);
  const chosen = byLink ?? null;
  const note = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);

  const choose = (alert: Alert | null) => {
    if (alert !== null) adjust({ ...at, alert: alert.id });
  };
  const acknowledge = (alert: Alert, text: string) => {
    const next = at.open ? nextOpen(shown, keyOf(alert)) : null;
    try {
      live.acknowledge(alert, text);
      if (next !== null) choose(next);
    } catch (error) {
      say(`It could not be acknowledged: ${(error as Error).message}`, true);
    }
  };
  useEffect(() => {
    if (chosen !== null) live.see([chosen]);
    if (chosen !== null) list.current?.querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
  }, [chosen && keyOf(chosen), unseen.size]);
  useKeys((event) => {
    const key = chosen === null ? null : keyOf(chosen);
    if (event.key === "j") choose(neighbour(shown, key, 1));
    else if (event.key === "k") choose(neighbour(shown, key, -1));
    else if (event.key === "a" && chosen !== null && chosen.acknowledged === null) acknowledge(chosen, note.current?.value.trim() ?? "");
    else if (event.key === "n" && note.current !== null) note.current.focus();
    else if (event.key === "Escape" && at.alert !== null) adjust({ ...at, alert: null });
    else return;
    event.preventDefault();
  });
  return (
    <section class={`alerts ${at.alert === null ? "" : "chosen"}`}>
      <div class="toolbar">
        <h1>Alerts</h1>
        <label class="inline">
          <span class="hidden">Least severity</span>
          <select value={at.severity} onChange={(event) => adjust({ ...at, severity: event.currentTarget.value as Severity })}>
            {SEVERITIES.map((severity) => (
              <option key={severity} value={severity}>
                {severity === "low" ? "all severities" : `${severity}${severity === "critical" ? "" : " and above"}`}
              </option>
            ))}
          </select>
        </label>
        <label class="inline">
          <span class="hidden">Stream</span>
          <select value={at.stream ?? ""} onChange={(event) => adjust({ ...at, stream: event.currentTarget.value || null, alert: null })}>
            <option value="">all streams</option>
            {(at.stream !== null && !streams.includes(at.stream) ? [at.stream, ...streams] : streams).map((stream) => (
              <option key={stream} value={stream}>
                {stream}
              </option>
            ))}
          </select>
        </label>
        <Toggle on={at.open} set={(open) => adjust({ ...at, open })} icon="check">
          Open only
        </Toggle>
        <span class="spring" />
        <Telling live={live} />
        {unseen.size > 0 && (
          <button type="button" class="quiet" onClick={() => live.see(alerts)}>
            Mark all as seen
          </button>
        )}
      </div>
      {!known ? (
        <Notice icon="wait" title="Looking for alerts …" busy />
      ) : alerts.length === 0 && fault !== null ? (
        <Notice icon="warn" title="Alerts cannot be listed now" tone="bad">
          <p>{fault.message}</p>
          <button type="button" onClick={() => live.retryAlerts()}>
            Try again
          </button>
        </Notice>
      ) : shown.length === 0 && chosen === null && at.alert === null ? (
        <Notice icon="bell" title={alerts.length ? "No alert fits" : "No alert yet"}>
          <p>
            {alerts.length
              ? "Other severities or streams have some."
              : "Alerts of your streams appear here at once, with the picture of the frame that they speak of."}
          </p>
        </Notice>
      ) : (
        <div class="columns">
          <ul class="list" ref={list} aria-label="Alerts, newest first">
            {shown.map((alert) => (
              <Row
                key={keyOf(alert)}
                alert={alert}
                now={now}
                pictures={pictures}
                current={chosen !== null && keyOf(alert) === keyOf(chosen)}
                fresh={unseen.has(keyOf(alert))}
                choose={choose}
              />
            ))}
          </ul>
          {chosen !== null ? (
            <Detail key={keyOf(chosen)} alert={chosen} now={now} at={at} pictures={pictures} note={note} acknowledge={acknowledge} />
          ) : at.alert !== null ? (
            <Notice icon="bell" title="This alert is not kept any more">
              <p>Recent alerts only are kept; or it is of a stream that you may not have.</p>
              <button type="button" onClick={() => adjust({ ...at, alert: null })}>
                To the list
              </button>
            </Notice>
          ) : (
            <div class="detail none dim">
              <p>
                Choose an alert, or press <kbd>j</kbd>.
              </p>
            </div>
          )}
        </div>
      )}
    </section>
  );
}

function Telling({ live }: { live: Live }) {
  const { notifier } = live;
  const wishes = useCell(notifier.wishes);
  const notify = async (on: boolean) => {
    const fault = await notifier.setNotify(on);
    if (fault !== null) say(fault, true);
  };
  return (
    <>
      <Toggle icon="sound" on={wishes.sound} set={(on) => void notifier.setSound(on)}>
        Sound
      </Toggle>
      <Toggle icon="bell" on={wishes.notify} set={(on) => void notify(on)}>
        Notify
      </Toggle>
    </>
  );
}

function usePicture(pictures: AlertPictures, alert: Alert, wanted: boolean): string | null | undefined {
  const [url, set] = useState<string | null | undefined>(undefined);
  useEffect(() => {
    if (!wanted) return;
    let ended = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = (tries: number) =>
      pictures.of(alert).then(
        (found) => {
          if (ended) return;
          set(found);
          // The picture may come after its alert; later none comes any more.
          if (found === null && tries > 0 && Date.now() - alert.timestamp < 30_000) timer = setTimeout(() => void ask(tries - 1), 4000);
        },
        () => ended || set(null),
      );
    void ask(3);
    return () => ((ended = true), clearTimeout(timer));
  }, [pictures, keyOf(alert), wanted]);
  return url;
}

interface RowProps {
  alert: Alert;
  now: number;
  pictures: AlertPictures;
  current: boolean;
  fresh: boolean;
  choose: (alert: Alert) => void;
}

function Row({ alert, now, pictures, current, fresh, choose }: RowProps) {
  const row = useRef<HTMLLIElement>(null);
  const [near, setNear] = useState(false);
  useEffect(() => {
    if (row.current === null) return;
    const watcher = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && setNear(true), { rootMargin: "200px" });
    watcher.observe(row.current);
    return () => watcher.disconnect();
  }, []);
  const url = usePicture(pictures, alert, near);
  return (
    <li ref={row} class={`${alert.severity} ${alert.acknowledged ? "done" : ""} ${fresh ? "fresh" : ""}`}>
      <button type="button" aria-current={current ? "true" : undefined} onClick={() => choose(alert)} data-alert={alert.id}>
        <span class="thumb">{url ? <img src={url} alt="" decoding="async" /> : <Icon name="bell" />}</span>
        <span class="text">
          <span class="message">{alert.message}</span>
          <span class="dim">
            {alert.streamId} · <time dateTime={new Date(alert.timestamp).toISOString()}>{ago(alert.timestamp, now)}</time>
          </span>
        </span>
        <span class="marks">
          <Chip severity={alert.severity} />
          {alert.acknowledged && (
            <span class="done-mark">
              <Icon name="check" size={14} /> <span class="hidden">acknowledged</span>
            </span>
          )}
        </span>
      </button>
    </li>
  );
}

interface DetailProps {
  alert: Alert;
  now: number;
  at: At;
  pictures: AlertPictures;
  note: { current: HTMLInputElement | null };
  acknowledge: (alert: Alert, note: string) => void;
}

function Detail({ alert, now, at, pictures, note, acknowledge }: DetailProps) {
  const url = usePicture(pictures, alert, true);
  const [text, setText] = useState("");
  const permalink = new URL(
    formatRoute({ view: "alerts", severity: "low", stream: alert.streamId, open: false, alert: alert.id }),
    location.href,
  ).href;
  const submit = (event: Event) => {
    event.preventDefault();
    acknowledge(alert, text.trim());
  };
  const facts = Object.entries(alert.metadata).slice(0, 20);
  const { acknowledged } = alert;
  return (
    <article class="detail" aria-label={`Alert: ${alert.message}`}>
      <button type="button" class="quiet back" onClick={() => adjust({ ...at, alert: null })}>
        <Icon name="back" /> All alerts
      </button>
      <div class="evidence">
        {url ? (
          <img src={url} alt={`The frame that the alert speaks of, from ${alert.streamId}`} />
        ) : (
          <p class="dim">{url === undefined ? "Looking for the picture …" : "No picture of this alert is kept."}</p>
        )}
      </div>
      <h2>
        <Chip severity={alert.severity} /> <span>{alert.message}</span>
      </h2>
      <p class="dim">
        <a href={formatRoute({ view: "stream", id: alert.streamId })}>{alert.streamId}</a> · {clock(alert.timestamp, now)} ·{" "}
        {ago(alert.timestamp, now)}
        {alert.frameId !== null && ` · frame ${alert.frameId}`}
      </p>
      {acknowledged !== null ? (
        <p class="acknowledged">
          <Icon name="check" /> Acknowledged by {acknowledged.userId || "somebody"}
          {acknowledged.timestamp > 0 && `, ${clock(acknowledged.timestamp, now)}`}
          {acknowledged.note && <q>{acknowledged.note}</q>}
        </p>
      ) : (
        <form class="acknowledge" onSubmit={submit}>
          <label class="field">
            <span>Note, for everybody who sees the alert</span>
            <input
              ref={note}
              maxLength={500}
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
              onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
            />
          </label>
          <button class="main">
            <Icon name="check" /> Acknowledge
          </button>
        </form>
      )}
      {facts.length > 0 && (
        <dl class="facts">
          {facts.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>
            </div>
          ))}
        </dl>
      )}
      <Copy text={permalink} label="Copy link" />
    </article>
  );
}

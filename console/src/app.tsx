/** The page around the views: sign-in, the bar, the state of the connection, and the view that the address names. */

import { useEffect, useRef, useState } from "preact/hooks";
import { useCell, useNow } from "./cell";
import { Icon, type IconName } from "./icons";
import { Live } from "./live";
import { formatRoute, HOME, tabOf, TABS, type Route, type Tab } from "./pure/route";
import { connectionSentence } from "./pure/words";
import { route } from "./router";
import { leave, session, type Session } from "./session";
import { theme, type Theme } from "./theme";
import { Notice, Said, useKeys } from "./ui";
import { AlertsView } from "./views/alerts";
import { CameraView } from "./views/camera";
import { HealthView } from "./views/health";
import { LiveGrid } from "./views/grid";
import { SharingView } from "./views/sharing";
import { SignIn } from "./views/signin";
import { StreamView } from "./views/stream";

const NAMES: Record<Tab, string> = { live: "Live", alerts: "Alerts", camera: "Camera", sharing: "Sharing", health: "Health" };

function homeOf(tab: Tab): Route {
  switch (tab) {
    case "alerts":
      return { view: "alerts", severity: "low", stream: null, open: false, alert: null };
    case "sharing":
      return { view: "sharing", stream: null };
    case "camera":
    case "health":
      return { view: tab };
    default:
      return HOME;
  }
}

export function App() {
  const now = useCell(session);
  return (
    <>
      {now.state === "starting" ? (
        <main class="splash">
          <h1 class="hidden">watchout</h1>
          <Notice icon="wait" title="Signing in …" busy />
        </main>
      ) : now.state === "out" ? (
        <SignIn why={now.why} message={now.message} />
      ) : (
        <SignedIn key={now.credential?.value ?? "cookie"} session={now} />
      )}
      <Said />
    </>
  );
}

function SignedIn({ session }: { session: Extract<Session, { state: "in" }> }) {
  const [live, setLive] = useState<Live | null>(null);
  useEffect(() => {
    const made = new Live(session.api, session.credential);
    setLive(made);
    return () => made.close();
  }, [session]);
  return live === null ? null : <Signed live={live} by={session.by} />;
}

function Signed({ live, by }: { live: Live; by: "token" | "share" | "ticket" | "cookie" }) {
  const at = useCell(route);
  const tab = tabOf(at);
  const main = useRef<HTMLElement>(null);
  const shown = useRef(at.view);
  const [help, setHelp] = useState(false);
  const tabs = by === "share" || by === "ticket" ? TABS.filter((each) => each === "live" || each === "alerts") : TABS;
  useEffect(() => {
    document.title = `${at.view === "stream" ? at.id : NAMES[tab]} – watchout`;
    if (shown.current !== at.view) {
      shown.current = at.view;
      main.current?.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
  }, [at, tab]);
  useKeys((event) => {
    const to = tabs[Number(event.key) - 1];
    if (to !== undefined) location.hash = formatRoute(homeOf(to));
    else if (event.key === "?") setHelp(true);
  });
  return (
    <div class="signed-in">
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to the content
      </a>
      <header class="bar">
        <a class="brand" href={formatRoute(HOME)} aria-label="watchout, live view">
          <Icon name="eye" size={22} /> <span>watchout</span>
        </a>
        <nav aria-label="Views">
          {tabs.map((each) => (
            <TabLink key={each} tab={each} current={each === tab} live={live} />
          ))}
        </nav>
        <div class="tools">
          <ConnectionPill live={live} />
          <ThemeButton />
          <button type="button" class="quiet round" aria-label="Keys and help" title="Keys and help (?)" onClick={() => setHelp(true)}>
            <Icon name="help" />
          </button>
          <button
            type="button"
            class="quiet round"
            aria-label="Sign out"
            title="Sign out"
            onClick={() => leave("signed-out", by === "cookie" ? "Your web app still has its session: sign out there, too." : "")}
          >
            <Icon name="out" />
          </button>
        </div>
      </header>
      <ConnectionBar live={live} />
      <main id="main" ref={main} tabIndex={-1}>
        {at.view === "live" && <LiveGrid live={live} at={at} by={by} />}
        {at.view === "stream" && <StreamView key={at.id} live={live} id={at.id} canShare={by !== "share" && by !== "ticket"} />}
        {at.view === "alerts" && <AlertsView live={live} at={at} />}
        {at.view === "camera" && <CameraView live={live} />}
        {at.view === "sharing" && <SharingView live={live} at={at} />}
        {at.view === "health" && <HealthView live={live} />}
      </main>
      {help && <Help close={() => setHelp(false)} />}
    </div>
  );
}

function TabLink({ tab, current, live }: { tab: Tab; current: boolean; live: Live }) {
  const { unseen } = useCell(live.alerts);
  const count = tab === "alerts" ? unseen.size : 0;
  return (
    <a href={formatRoute(homeOf(tab))} aria-current={current ? "page" : undefined}>
      <Icon name={tab as IconName} size={20} />
      <span>{NAMES[tab]}</span>
      {count > 0 && (
        <span class="badge">
          {count > 99 ? "99+" : count}
          <span class="hidden"> new</span>
        </span>
      )}
    </a>
  );
}

function ConnectionPill({ live }: { live: Live }) {
  const { state } = useCell(live.connection);
  const words = { idle: "ready", connecting: "connecting", online: "connected", waiting: "reconnecting", closed: "closed" }[state];
  return (
    <span class={`pill ${state}`} title={`Connection: ${words}`}>
      <span class="dot" /> <span class="words">{words}</span>
    </span>
  );
}

/** A notice above the view when connection, gateway or router is away; not shown for states that pass at once. */
function ConnectionBar({ live }: { live: Live }) {
  const now = useNow(1000);
  const connection = useCell(live.connection);
  const { fault, retryAt } = useCell(live.streams);
  let text = connectionSentence(connection, now);
  if (connection.state === "connecting" && connection.code === undefined) text = null;
  if (text === null && fault !== null && fault.fault !== "signed-out") {
    const s = Math.max(0, Math.ceil((retryAt - now) / 1000));
    const what = { router: "The router is away", limited: "Too much was asked for at once", store: "Sessions cannot be checked now" };
    const known = what[fault.fault as keyof typeof what] ?? "The gateway does not answer";
    text = `${known}; the list of streams is asked for again in ${s} s.`;
  }
  const [waiting, setWaiting] = useState(false);
  const away = text !== null;
  useEffect(() => {
    if (!away) return setWaiting(false);
    const timer = setTimeout(() => setWaiting(true), 300);
    return () => clearTimeout(timer);
  }, [away]);
  return (
    <div class="connection" role="status">
      {text !== null && waiting && (
        <p>
          <Icon name="wait" /> <span>{text}</span>
        </p>
      )}
    </div>
  );
}

function ThemeButton() {
  const now = useCell(theme);
  const next: Record<Theme, Theme> = { auto: "dark", dark: "light", light: "auto" };
  const names: Record<Theme, string> = { auto: "as the system", dark: "dark", light: "light" };
  const icons: Record<Theme, IconName> = { auto: "auto", dark: "moon", light: "sun" };
  return (
    <button
      type="button"
      class="quiet round"
      aria-label={`Colours: ${names[now]}`}
      title={`Colours: ${names[now]}`}
      onClick={() => theme.set(next[now])}
    >
      <Icon name={icons[now]} />
    </button>
  );
}

const KEYS: readonly [string, string][] = [
  ["1 … 5", "the views"],
  ["j  k", "next and previous alert"],
  ["a", "acknowledge the chosen alert"],
  ["n", "write a note to it"],
  ["f", "full screen, in the view of one stream"],
  ["+  −  0", "zoom in, out, whole picture"],
  ["arrows", "move the enlarged picture"],
  ["s", "save the picture"],
  ["?", "this list"],
];

function Help({ close }: { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby="help-title" onClose={close}>
      <h2 id="help-title">Keys</h2>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="dim">
        The console is part of watchout and loads nothing from elsewhere. <a href="console/licences.txt">Licences</a>
      </p>
      <p>
        <button type="button" autofocus onClick={() => dialog.current?.close()}>Close</button>
      </p>
    </dialog>
  );
}

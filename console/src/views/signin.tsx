/** Signing in: with a token or a ticket; a cookie or a link signs in by itself. */

import { useState } from "preact/hooks";
import { Icon } from "../icons";
import { formatRoute, isStreamId, takeCredential } from "../pure/route";
import { session, signIn, start, type Why } from "../session";
import { useFocus } from "../ui";

const TITLES: Record<Why, string> = {
  new: "Sign in",
  refused: "That did not work",
  ended: "Your session has ended",
  "signed-out": "You are signed out",
  unreachable: "The gateway cannot sign anybody in now",
};

export function SignIn({ why, message }: { why: Why; message: string }) {
  const field = useFocus<HTMLInputElement>();
  const [value, setValue] = useState("");
  const [kind, setKind] = useState<"token" | "ticket">("token");
  const [stay, setStay] = useState(false);
  const [stream, setStream] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    const text = value.trim();
    if (!text || busy) return;
    setBusy(true);
    // A whole link may be pasted as well.
    const { credential: link, rest } = takeCredential(text.includes("#") ? text.slice(text.indexOf("#")) : "");
    if (link !== null && rest) location.hash = rest;
    const token = text.replace(/^Bearer\s+/i, "");
    if (kind === "ticket" && isStreamId(stream)) location.hash = formatRoute({ view: "stream", id: stream });
    try {
      await signIn(link ?? { kind, value: token, shared: false }, stay);
    } finally {
      setBusy(false);
      field.current?.select(); // what was refused is overwritten by the next paste, and cannot be seen
    }
  };
  return (
    <main class="signin">
      <form class="card" onSubmit={(event) => void submit(event)}>
        <p class="brand">
          <Icon name="eye" size={26} /> <span>watchout</span>
        </p>
        <h1>{TITLES[why]}</h1>
        {message && (
          <p class="reason" role="alert">
            {message}
          </p>
        )}
        {why === "unreachable" && (
          <button type="button" onClick={() => (session.set({ state: "starting" }), void start())}>
            Try again
          </button>
        )}
        <fieldset>
          <legend class="hidden">What you sign in with</legend>
          <div class="segments">
            {(["token", "ticket"] as const).map((each) => (
              <label key={each}>
                <input type="radio" name="kind" checked={kind === each} onChange={() => setKind(each)} />
                <span>{each === "token" ? "Token" : "One-time ticket"}</span>
              </label>
            ))}
          </div>
        </fieldset>
        <label class="field">
          <span>{kind === "token" ? "Session token, JWT or share link" : "Ticket"}</span>
          <input
            ref={field}
            type="password"
            name="token"
            autocomplete={kind === "token" ? "current-password" : "one-time-code"}
            spellcheck={false}
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
        </label>
        {kind === "ticket" && (
          <label class="field">
            <span>Stream: a ticket is good for one connection</span>
            <input name="stream" spellcheck={false} autocapitalize="off" value={stream} onInput={(event) => setStream(event.currentTarget.value.trim())} />
          </label>
        )}
        {kind === "token" && (
          <label class="tick">
            <input type="checkbox" checked={stay} onChange={(event) => setStay(event.currentTarget.checked)} />
            <span>Stay signed in on this device</span>
          </label>
        )}
        <button class="main" disabled={busy || !value.trim() || (kind === "ticket" && !isStreamId(stream))}>
          {busy ? "Signing in …" : "Sign in"}
        </button>
        <p class="dim">
          <code>make run</code> prints a token; <code>watchout-ctl token</code> prints another. Whoever is signed in to a
          web app of the same site is signed in here by its cookie.
        </p>
      </form>
    </main>
  );
}

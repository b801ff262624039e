/** Who is signed in: where the credential comes from, where it is kept, and how it ends. */

import { Api, ApiError } from "./api";
import { Cell } from "./cell";
import { takeCredential, type Credential } from "./pure/route";

/** Why nobody is signed in. */
export type Why = "new" | "refused" | "ended" | "signed-out" | "unreachable";

export type Session =
  | { state: "starting" }
  | { state: "out"; why: Why; message: string }
  | { state: "in"; by: "token" | "share" | "ticket" | "cookie"; api: Api; credential: Credential | null };

export const session = new Cell<Session>({ state: "starting" });

/** In which storage the token is: of this tab by default, of this browser when its user ticked "stay signed in". */
const KEY = "watchout.token";
const SHARED_KEY = "watchout.share";

function storages(): Storage[] {
  const found: Storage[] = [];
  for (const name of ["sessionStorage", "localStorage"] as const) {
    try {
      found.push(window[name]); // throws where storage is switched off
    } catch {
      continue;
    }
  }
  return found;
}

function stored(): Credential | null {
  for (const storage of storages()) {
    for (const [key, shared] of [[SHARED_KEY, true], [KEY, false]] as const) {
      const value = storage.getItem(key);
      if (value) return { kind: "token", value, shared };
    }
  }
  return null;
}

function forget(): void {
  for (const storage of storages()) for (const key of [KEY, SHARED_KEY]) storage.removeItem(key);
}

function keep(credential: Credential, stay: boolean): void {
  forget();
  if (credential.kind !== "token") return; // a ticket works once: there is nothing to keep
  const [ofTab, ofBrowser] = storages();
  (stay ? ofBrowser : ofTab)?.setItem(credential.shared ? SHARED_KEY : KEY, credential.value);
}

function message(error: unknown): { why: Why; message: string } {
  if (!(error instanceof ApiError)) throw error;
  if (error.fault === "signed-out") return { why: "refused", message: error.message };
  return { why: "unreachable", message: error.message };
}

/** Signs in with the credential in the address, else the stored one, else the cookie. Called once, at the start. */
export async function start(): Promise<void> {
  const { credential, rest } = takeCredential(location.hash);
  if (credential !== null) {
    history.replaceState(null, "", location.pathname + location.search + rest);
    await signIn(credential, false);
    return;
  }
  const kept = stored();
  if (kept !== null) {
    await signIn(kept, null);
    return;
  }
  const api = new Api(null);
  try {
    await api.streams();
    session.set({ state: "in", by: "cookie", api, credential: null });
  } catch (error) {
    const found = message(error);
    // What follows the semicolon is why a cookie that came was not used.
    if (found.why === "refused") session.set({ state: "out", why: "new", message: found.message.split("; ")[1] ?? "" });
    else session.set({ state: "out", ...found });
  }
}

/** Signs in with a credential. `stay`: keep it for this browser, not only for this tab; null: leave it where it is. */
export async function signIn(credential: Credential, stay: boolean | null): Promise<void> {
  if (credential.kind === "ticket") {
    // A ticket is valid for one connection, which the live client opens; a check here would use it up.
    session.set({ state: "in", by: "ticket", api: new Api(null), credential });
    return;
  }
  const api = new Api(credential.value);
  try {
    await api.streams();
  } catch (error) {
    const found = message(error);
    if (found.why === "refused") forget();
    if (found.why === "refused" || stay !== null) {
      session.set({ state: "out", ...found });
      return;
    }
    // The gateway cannot verify the stored token now: go on, the client reconnects until it can.
  }
  if (stay !== null) keep(credential, stay);
  session.set({ state: "in", by: credential.shared ? "share" : "token", api, credential });
}

/** Ends the session: the user signed out, or the gateway ended it. */
export function leave(why: Why, text = ""): void {
  if (why !== "unreachable") forget();
  session.set({ state: "out", why, message: text });
}

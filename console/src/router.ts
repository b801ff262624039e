/** The view that the address names. */

import { Cell } from "./cell";
import { formatRoute, parseRoute, takeCredential, type Route } from "./pure/route";
import { signIn } from "./session";

export const route = new Cell<Route>(parseRoute(location.hash));

window.addEventListener("hashchange", () => {
  const { credential, rest } = takeCredential(location.hash);
  if (credential !== null) {
    // A link with a credential was opened in this tab.
    history.replaceState(null, "", location.pathname + location.search + rest);
    void signIn(credential, false);
  }
  route.set(parseRoute(location.hash));
});

/** Shows another view; the browser's back button returns. */
export function go(to: Route): void {
  location.hash = formatRoute(to);
}

/** Changes the address of the present view without a new entry in the history. */
export function adjust(to: Route): void {
  history.replaceState(null, "", formatRoute(to));
  route.set(to);
}

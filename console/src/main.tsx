/** Starts the console. */

import { render } from "preact";
import { App } from "./app";
import { start } from "./session";
import { route } from "./router";
import { parseRoute } from "./pure/route";

const root = document.getElementById("app");
if (root !== null) {
  void start().then(() => route.set(parseRoute(location.hash)));
  render(<App />, root);
}

/** The platform: clock, WebSocket class, and reports about the network. */

import type { Clock, Platform, SocketConstructor } from "./types.js";

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  timer(run, ms) {
    const handle = setTimeout(run, Math.min(ms, 2 ** 31 - 1));
    return () => clearTimeout(handle);
  },
};

/** Return the platform's WebSocket class. Throws `TypeError` when it has none. */
export function systemSocket(): SocketConstructor {
  const { WebSocket } = globalThis as { WebSocket?: SocketConstructor };
  if (WebSocket === undefined) throw new TypeError("no WebSocket here: pass the option `WebSocket`");
  return WebSocket;
}

/** Reports of a page: online, offline, and shown again. None without a page. */
export const pagePlatform: Platform = (report) => {
  const { document } = globalThis as { document?: Document };
  if (document === undefined || typeof addEventListener !== "function") return () => undefined;
  const listen = ({ type }: Event): void => {
    if (type === "online" || type === "offline") report(type);
    else if (document.visibilityState === "visible") report("wake");
  };
  const sources = [[globalThis, ["online", "offline", "pageshow"]], [document, ["visibilitychange"]]] as const;
  for (const [source, types] of sources) for (const type of types) source.addEventListener(type, listen);
  return () => {
    for (const [source, types] of sources) for (const type of types) source.removeEventListener(type, listen);
  };
};

/** Reports of a React Native app: `reactNativePlatform(AppState)`. */
export function reactNativePlatform(appState: {
  addEventListener(type: "change", listener: (state: string) => void): { remove(): void };
}): Platform {
  return (report) => {
    const subscription = appState.addEventListener("change", (state) => {
      if (state === "active") report("wake");
    });
    return () => subscription.remove();
  };
}

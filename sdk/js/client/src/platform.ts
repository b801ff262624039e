/** What the platform offers: clock, socket, reports of the network. */

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
  if (WebSocket === undefined) throw new TypeError("this platform has no WebSocket: pass the option `WebSocket`");
  return WebSocket;
}

/** Reports of a page: the network comes and goes, the page is shown again. Without a page: none. */
export const pagePlatform: Platform = (report) => {
  const { document } = globalThis as { document?: Document };
  const target = globalThis as unknown as Partial<Pick<EventTarget, "addEventListener" | "removeEventListener">>;
  if (target.addEventListener === undefined || document === undefined) return () => undefined;
  const online = (): void => report("online");
  const offline = (): void => report("offline");
  const wake = (): void => {
    if (document.visibilityState === "visible") report("wake");
  };
  target.addEventListener("online", online);
  target.addEventListener("offline", offline);
  target.addEventListener("pageshow", wake);
  document.addEventListener("visibilitychange", wake);
  return () => {
    target.removeEventListener?.("online", online);
    target.removeEventListener?.("offline", offline);
    target.removeEventListener?.("pageshow", wake);
    document.removeEventListener("visibilitychange", wake);
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

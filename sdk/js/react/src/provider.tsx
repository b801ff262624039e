"use client";

import { createContext, useContext, useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import type { TokenSource, Watchout } from "@watchout/client/browser";
import { entryFor, type ClientOptions } from "./clients.js";

const Context = createContext<Watchout | undefined>(undefined);

export interface WatchoutProviderProps {
  /** Address of the gateway: `wss://…`, `https://…`, or a path of the page's own host. */
  readonly url?: string;
  /** A token, or a function that returns one; none: the browser's cookie. A new function in each render is fine. */
  readonly token?: string | TokenSource;
  /** Further options of the client; those of the first render hold. */
  readonly options?: ClientOptions;
  /** A client of your own in place of `url` and `token`; you close it. */
  readonly client?: Watchout;
  readonly children?: ReactNode;
}

/** Gives one client, and with it one socket for all views, to the components below. */
export function WatchoutProvider({ url = "/", token, options, client, children }: WatchoutProviderProps): ReactNode {
  const first = useRef(options);
  const [version, setVersion] = useState(0);
  const identity = typeof token === "function" ? "callback" : token;
  const entry = useMemo(
    () => (client === undefined ? entryFor(url, token, first.current ?? {}) : undefined),
    // Another callback does not make another client: the newest one is called.
    [client, url, identity, version],
  );
  useEffect(() => {
    if (entry !== undefined) entry.token = token;
  }, [entry, token]);
  useEffect(() => {
    if (entry?.isClosed !== true) return entry?.retain();
    setVersion((before) => before + 1); // hidden for long, and shown again
    return undefined;
  }, [entry]);
  return <Context.Provider value={client ?? entry?.client}>{children}</Context.Provider>;
}

/** The client of the nearest `WatchoutProvider`. */
export function useWatchout(): Watchout {
  const client = useContext(Context);
  if (client === undefined) throw new Error("useWatchout and the components of @watchout/react need a <WatchoutProvider> above them");
  return client;
}

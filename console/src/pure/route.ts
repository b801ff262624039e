/** The address of a view, kept in the fragment of the page's URL. Pure. */

export const TABS = ["live", "alerts", "camera", "sharing", "health"] as const;
export type Tab = (typeof TABS)[number];

export type Severity = "low" | "medium" | "high" | "critical";
export const SEVERITIES: readonly Severity[] = ["low", "medium", "high", "critical"];

export const SIZES = ["small", "medium", "large"] as const;
export type TileSize = (typeof SIZES)[number];

export type Route =
  | { view: "live"; streams: string[] | null; size: TileSize; saving: boolean }
  | { view: "stream"; id: string }
  | { view: "alerts"; severity: Severity; stream: string | null; open: boolean; alert: string | null }
  | { view: "camera" }
  | { view: "sharing"; stream: string | null }
  | { view: "health" };

/** The credential in a link. It is in the fragment, which browsers send to no server, so that no log has it. */
export type Credential = { kind: "token" | "ticket"; value: string; shared: boolean };

const STREAM_ID = /^[A-Za-z0-9_.:-]{1,128}$/;
const MAX_STREAMS = 100;

export const HOME: Route = { view: "live", streams: null, size: "medium", saving: false };

export function isStreamId(text: string): boolean {
  return STREAM_ID.test(text);
}

function oneOf<T extends string>(value: string | null, words: readonly T[], otherwise: T): T {
  return words.includes(value as T) ? (value as T) : otherwise;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

/** Reads a fragment such as `#/alerts/a1?severity=high`; whatever cannot be read is the live view. */
export function parseRoute(fragment: string): Route {
  const [path = "", search = ""] = fragment.replace(/^#/, "").split("?", 2);
  const [view = "", id = ""] = path.replace(/^\//, "").split("/").map(decode);
  const query = new URLSearchParams(search);
  const stream = query.get("stream");
  const known = stream !== null && isStreamId(stream) ? stream : null;
  switch (view) {
    case "stream":
      return isStreamId(id) ? { view, id } : HOME;
    case "alerts":
      return {
        view,
        severity: oneOf(query.get("severity"), SEVERITIES, "low"),
        stream: known,
        open: query.get("open") === "1",
        alert: id || null,
      };
    case "camera":
    case "health":
      return { view };
    case "sharing":
      return { view, stream: known };
    default: {
      const streams = (query.get("streams") ?? "").split(",").filter(isStreamId);
      return {
        view: "live",
        streams: streams.length ? [...new Set(streams)].slice(0, MAX_STREAMS) : null,
        size: oneOf(query.get("size"), SIZES, "medium"),
        saving: query.get("saving") === "1",
      };
    }
  }
}

/** The fragment of a view: `parseRoute` reads it back. */
export function formatRoute(route: Route): string {
  const query = new URLSearchParams();
  let path: string = route.view;
  switch (route.view) {
    case "live":
      if (route.streams !== null) query.set("streams", route.streams.join(","));
      if (route.size !== "medium") query.set("size", route.size);
      if (route.saving) query.set("saving", "1");
      break;
    case "stream":
      path += `/${encodeURIComponent(route.id)}`;
      break;
    case "alerts":
      if (route.alert !== null) path += `/${encodeURIComponent(route.alert)}`;
      if (route.severity !== "low") query.set("severity", route.severity);
      if (route.stream !== null) query.set("stream", route.stream);
      if (route.open) query.set("open", "1");
      break;
    case "sharing":
      if (route.stream !== null) query.set("stream", route.stream);
      break;
  }
  const text = query.toString().replace(/%2C/g, ",").replace(/%3A/g, ":");
  return `#/${path}${text ? `?${text}` : ""}`;
}

export function tabOf(route: Route): Tab {
  return route.view === "stream" ? "live" : route.view;
}

/**
 * Takes the credential out of a fragment: `#token=…`, `#ticket=…`, `#share=…`, alone or in the query of a view
 * (`#/stream/cam?share=…`). Returns it with the fragment that may stay in the address.
 */
export function takeCredential(fragment: string): { credential: Credential | null; rest: string } {
  const text = fragment.replace(/^#/, "");
  const at = text.startsWith("/") ? text.indexOf("?") : -1;
  const path = text.startsWith("/") ? (at < 0 ? text : text.slice(0, at)) : "";
  const query = new URLSearchParams(path && at < 0 ? "" : text.slice(at + 1));
  let credential: Credential | null = null;
  for (const name of ["token", "share", "ticket"] as const) {
    const value = query.get(name)?.trim();
    if (value && credential === null)
      credential = { kind: name === "ticket" ? "ticket" : "token", value, shared: name === "share" };
    query.delete(name);
  }
  const stream = query.get("stream");
  if (!path && credential !== null && stream !== null && isStreamId(stream))
    return { credential, rest: formatRoute({ view: "stream", id: stream }) };
  const left = query.toString();
  return { credential, rest: path ? `#${path}${left ? `?${left}` : ""}` : left && credential === null ? `#${left}` : "" };
}

/** The address of this console with a credential, for a link or a QR code. */
export function linkWith(page: string, name: "token" | "share", value: string, route: Route): string {
  const fragment = formatRoute(route);
  return `${page.split("#")[0]}${fragment}${fragment.includes("?") ? "&" : "?"}${name}=${encodeURIComponent(value)}`;
}

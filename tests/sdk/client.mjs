// An app on the built @watchout/client: told what to do by lines of JSON on stdin, tells what it sees on stdout.
// Runs on Node, Bun and Deno. Arguments: the client's module, the gateway's URL, options as JSON.
import { createInterface } from "node:readline";
import process from "node:process";

const [module, url, options] = process.argv.slice(2);
const { Watchout } = await import(module);
const { tokens, ...rest } = JSON.parse(options);
const tell = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));
const errorOf = (error) => ({ code: error?.code, streamId: error?.streamId, retryable: error?.retryable, closeCode: error?.closeCode });
process.on("unhandledRejection", (error) => tell("fault", { what: `unhandled: ${error?.stack ?? error}` }));
process.on("uncaughtException", (error) => tell("fault", { what: `uncaught: ${error?.stack ?? error}` }));

const waiting = [];
let asked = 0;
const token = (why) => {
  tell("token", { why, at: ++asked });
  return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
};
const watchout = new Watchout(url, { ...(tokens ? { token } : {}), ...rest });
watchout.on("state", (each) => tell("state", { state: each.state, retryInMs: each.retryInMs, ...errorOf(each.reason) }));
watchout.on("error", (each) => tell("error", errorOf(each)));
const views = new Map();
let camera;

async function showFrames(view) {
  try {
    for await (const frame of view.frames()) {
      const data = btoa(String.fromCharCode(...frame.bytes));
      tell("frame", { streamId: frame.streamId, frameId: frame.frameId, timestamp: frame.timestamp, data, mime: frame.mime });
    }
    tell("frames-end", { streamId: view.streamId });
  } catch (error) {
    tell("frames-end", { streamId: view.streamId, ...errorOf(error) });
  }
}

async function showAlerts(view) {
  try {
    for await (const alert of view.alerts()) tell("alert", { streamId: alert.streamId, id: alert.id, recovered: alert.recovered });
    tell("alerts-end", { streamId: view.streamId });
  } catch (error) {
    tell("alerts-end", { streamId: view.streamId, ...errorOf(error) });
  }
}

const actions = {
  view({ streamId, frames = true, options = {} }) {
    const view = watchout.view(streamId, options);
    views.set(streamId, view);
    view.on("status", (status) => tell("status", { streamId, status, info: view.info }));
    view.on("recovery", (event) => tell("recovery", { streamId, ...event }));
    view.on("acknowledged", (event) => tell("acknowledged", { ...event, event: "acknowledged" }));
    view.on("error", (error) => tell("view-error", { ...errorOf(error), streamId }));
    if (frames) void showFrames(view);
    void showAlerts(view);
  },
  pause: ({ streamId }) => views.get(streamId).pause(),
  resume: ({ streamId }) => views.get(streamId).resume(),
  acknowledge: ({ streamId, alertId, note }) => views.get(streamId).acknowledge(alertId, note),
  unview: ({ streamId }) => views.get(streamId).close(),
  camera({ options = {} }) {
    camera = watchout.camera(options);
    camera.on("state", (each) => tell("camera", { state: each.state, ...errorOf(each.reason) }));
    camera.on("registered", ({ streamId }) => tell("registered", { streamId }));
    camera.on("demand", ({ fps, viewers }) => tell("demand", { fps, viewers }));
    camera.on("alert", ({ id }) => tell("camera-alert", { id }));
    camera.on("error", (error) => tell("camera-error", errorOf(error)));
  },
  room: () => camera.ready().then((room) => tell("room", { room })),
  send({ data, timestamp, text = false }) {
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    tell("sent", { sent: camera.send(text ? data : bytes, { timestamp }) });
  },
  // As a device does: wait until a frame is wanted, send it, again.
  async publish({ data }) {
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    while (await camera.ready()) camera.send(bytes);
    tell("publish-end");
  },
  counts: () => tell("counts", { ...camera.counts, room: camera.room }),
  raise: ({ severity, message, id }) =>
    camera.alert(severity, message, { id }).then((got) => tell("raised", { id: got }), (error) => tell("raised", errorOf(error))),
  give: ({ token }) => waiting.shift().resolve(token),
  refuse: () => waiting.shift().reject(new Error("no network")),
  connect: () => watchout.connect(),
  streams: () => watchout.streams().then((all) => tell("streams", { ids: all.map((each) => each.id), all }), (error) => tell("streams", errorOf(error))),
  close() {
    watchout.close();
    input.close();
    process.stdin.destroy(); // the process ends when nothing of the client is left
  },
};

const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  const { do: what, ...more } = JSON.parse(line);
  actions[what](more);
});
input.on("close", () => watchout.close());
tell("started", { modules: Object.keys(watchout).length });

// The edge protocol's frames on Bun: `bun relay_bun.js PORT TOKEN [CERTIFICATE KEY]`. As fast as Bun goes, and nothing else
// in it. With the files of a certificate and its key it speaks TLS.
//
// Every frame is one `server.publish` to a topic of the stream and form; who subscribes is in Bun's own tree of topics.
// No compression. A JSON frame gets its number by splicing the text; a form is never made into the other.

const [port, token, certificate, key] = process.argv.slice(2);
const users = new Map([[token, { id: "bench" }]]);
const numbers = new Map(); // stream -> its last frame id

const say = (ws, fields) => ws.send(JSON.stringify({ ...fields, timestamp: Date.now() }));

function command(ws, text) {
  const message = JSON.parse(text);
  const { type, streamId } = message;
  const state = ws.data;
  if (type === "auth") {
    state.user = users.get(message.token);
    if (!state.user) return ws.close(1008, "AUTH_FAILED");
    return say(ws, { type: "success", message: "Authentication successful" });
  }
  if (!state.user) return say(ws, { type: "error", code: "AUTH_REQUIRED", message: "authenticate first" });
  if (type === "register" && state.camera) {
    state.streamId = streamId;
    state.json = `${streamId}/json`;
    state.binary = `${streamId}/binary`;
    state.prefix = `{"type":"video-frame","streamId":${JSON.stringify(streamId)},`;
    return say(ws, { type: "success", message: `Registration successful. Stream ID: ${streamId}`, streamId });
  }
  if (type === "subscribe" && !state.camera) {
    ws.subscribe(`${streamId}/${message.format === "binary" ? "binary" : "json"}`);
    return say(ws, { type: "success", message: "Subscription successful", streamId });
  }
  say(ws, { type: "error", code: "INVALID_MESSAGE", message: "this relay does not know what to do with it" });
}

function nextNumber(streamId) {
  const number = (numbers.get(streamId) ?? 0) + 1;
  numbers.set(streamId, number);
  return number;
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  tls: certificate === undefined ? undefined : { cert: Bun.file(certificate), key: Bun.file(key) },
  fetch(request, server) {
    const { pathname } = new URL(request.url);
    if (pathname !== "/streams/register" && pathname !== "/streams/subscribe") return new Response("", { status: 404 });
    const data = { camera: pathname === "/streams/register", user: undefined, streamId: "", prefix: undefined };
    if (server.upgrade(request, { data })) return;
    return new Response("WebSocket only", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: 16 << 20,
    backpressureLimit: 16 << 20, // a viewer behind this misses frames
    idleTimeout: 0,
    sendPings: false,
    message(ws, message) {
      const state = ws.data;
      if (typeof message === "string") {
        if (state.prefix !== undefined && message.startsWith(state.prefix) && message.endsWith("}"))
          server.publish(state.json, `${message.slice(0, -1)},"frameId":${nextNumber(state.streamId)}}`);
        else command(ws, message);
      } else if (state.prefix !== undefined && message[0] === 0x57) {
        message.writeUInt32BE(nextNumber(state.streamId), 4); // the buffer is ours: Bun copied it for this call
        server.publish(state.binary, message);
      }
    },
  },
});

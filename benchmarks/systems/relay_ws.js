// The edge protocol's frames on Node.js and `ws`: `node relay_ws.js PATH-OF-WS PORT TOKEN`. As fast as ws goes.
//
// A frame becomes WebSocket bytes once (`Sender.frame`), and every viewer's socket is given the same buffer. No
// compression. A JSON frame gets its number by splicing the bytes; a form is never made into the other.

const http = require("node:http");
const [path, port, token] = process.argv.slice(2);
const { WebSocketServer, Sender } = require(path);

const MAX_HEADER_BYTES = 10; // of a server's frame: it masks nothing (RFC 6455 section 5.2)
const BACKPRESSURE_LIMIT_BYTES = 16 << 20; // a viewer behind this misses frames
const TEXT = { fin: true, rsv1: false, opcode: 1, mask: false, readOnly: true };
const BINARY = { ...TEXT, opcode: 2 };

const users = new Map([[token, { id: "bench" }]]);
const streams = new Map(); // id -> {number, json: sockets, binary: sockets}

function streamOf(streamId) {
  let stream = streams.get(streamId);
  if (stream === undefined) streams.set(streamId, (stream = { number: 0, json: new Set(), binary: new Set() }));
  return stream;
}

const say = (ws, fields) => ws.send(JSON.stringify({ ...fields, timestamp: Date.now() }));

function command(ws, state, text) {
  const message = JSON.parse(text);
  const { type, streamId } = message;
  if (type === "auth") {
    state.user = users.get(message.token);
    if (!state.user) return ws.close(1008, "AUTH_FAILED");
    return say(ws, { type: "success", message: "Authentication successful" });
  }
  if (!state.user) return say(ws, { type: "error", code: "AUTH_REQUIRED", message: "authenticate first" });
  if (type === "register" && state.camera) {
    state.stream = streamOf(streamId);
    state.prefix = Buffer.from(`{"type":"video-frame","streamId":${JSON.stringify(streamId)},`);
    return say(ws, { type: "success", message: `Registration successful. Stream ID: ${streamId}`, streamId });
  }
  if (type === "subscribe" && !state.camera) {
    const viewers = streamOf(streamId)[message.format === "binary" ? "binary" : "json"];
    viewers.add(ws._socket);
    ws.on("close", () => viewers.delete(ws._socket));
    return say(ws, { type: "success", message: "Subscription successful", streamId });
  }
  say(ws, { type: "error", code: "INVALID_MESSAGE", message: "this relay does not know what to do with it" });
}

// `room` holds the payload behind MAX_HEADER_BYTES; the header goes right before it, and that is all that is copied.
function publish(viewers, room, options) {
  const [header] = Sender.frame(room.subarray(MAX_HEADER_BYTES), options);
  header.copy(room, MAX_HEADER_BYTES - header.length);
  const wire = room.subarray(MAX_HEADER_BYTES - header.length);
  for (const socket of viewers) {
    if (socket.writableLength < BACKPRESSURE_LIMIT_BYTES && !socket.writableEnded) socket.write(wire);
  }
}

function jsonFrame(stream, data) {
  const tail = `,"frameId":${++stream.number}}`;
  const end = MAX_HEADER_BYTES + data.length - 1;
  const room = Buffer.allocUnsafe(end + tail.length);
  data.copy(room, MAX_HEADER_BYTES);
  room.latin1Write(tail, end);
  publish(stream.json, room, TEXT);
}

function binaryFrame(stream, data) {
  const room = Buffer.allocUnsafe(MAX_HEADER_BYTES + data.length);
  data.copy(room, MAX_HEADER_BYTES);
  room.writeUInt32BE(++stream.number, MAX_HEADER_BYTES + 4);
  publish(stream.binary, room, BINARY);
}

const server = http.createServer((_, response) => response.writeHead(426).end());
const sockets = new WebSocketServer({ server, perMessageDeflate: false, maxPayload: 16 << 20, clientTracking: false });

sockets.on("connection", (ws, request) => {
  const state = { camera: request.url === "/streams/register", user: undefined, stream: undefined, prefix: undefined };
  ws.on("error", () => ws.terminate());
  ws.on("message", (data, isBinary) => {
    const { stream, prefix } = state;
    if (stream === undefined) return command(ws, state, data);
    if (isBinary) {
      if (data[0] === 0x57) binaryFrame(stream, data);
    } else if (data.compare(prefix, 0, prefix.length, 0, prefix.length) === 0 && data[data.length - 1] === 0x7d) {
      jsonFrame(stream, data);
    } else command(ws, state, data);
  });
});
server.listen(Number(port), "127.0.0.1", 4096);

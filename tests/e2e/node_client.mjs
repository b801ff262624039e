// A camera and a viewer for Node, written from the edge protocol alone, on the npm package `ws`.
//
//   node node_client.mjs camera|viewer URL '{"token":…, …}'
//
// Options of both: token, by (message|header|query), format (json|binary), frames (how many).
// A camera takes also: streamId, prefix (a data: URL), alert (a panic button), waitFor ("start" on standard input).
// A viewer takes also: streamId, window, consumes.
// Each event goes to standard output as one line of JSON: {"event":…}. Exit code 0 when all went as expected.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("./node/package.json", import.meta.url));
const WebSocket = require("ws");

const [role, url, text] = process.argv.slice(2);
const options = { by: "message", format: "json", frames: 3, ...JSON.parse(text) };
const JPEG = Buffer.concat([Buffer.from([0xff, 0xd8, 0xff, 0xe0]), Buffer.from("a picture of Node"), Buffer.from([0xff, 0xd9])]);

const say = (event, fields = {}) => process.stdout.write(JSON.stringify({ ...fields, event }) + "\n");
const fail = (reason) => {
  say("failed", { reason });
  process.exit(1);
};
setTimeout(() => fail("out of time"), 120_000).unref();

function pack(picture, { streamId = "", timestamp = Date.now(), codec = 1 }) {
  const name = Buffer.from(streamId, "ascii");
  const head = Buffer.alloc(18);
  head.writeUInt8(0x57, 0);
  head.writeUInt8(1, 1);
  head.writeUInt8(1, 2);
  head.writeUInt8(0, 3);
  head.writeUInt32BE(0, 4);
  head.writeBigUInt64BE(BigInt(timestamp), 8);
  head.writeUInt8(codec, 16);
  head.writeUInt8(name.length, 17);
  return Buffer.concat([head, name, picture]);
}

function unpack(data) {
  if (data.readUInt8(0) !== 0x57 || data.readUInt8(1) !== 1 || data.readUInt8(2) !== 1) fail("a binary header that is none");
  const end = 18 + data.readUInt8(17);
  return {
    frameId: data.readUInt32BE(4),
    timestamp: Number(data.readBigUInt64BE(8)),
    codec: data.readUInt8(16),
    streamId: data.subarray(18, end).toString("ascii"),
    picture: data.subarray(end).toString("base64"),
  };
}

const path = role === "camera" ? "/streams/register" : "/streams/subscribe";
const query = options.by === "query" ? `?token=${encodeURIComponent(options.token)}` : "";
const headers = options.by === "header" ? { Authorization: `Bearer ${options.token}` } : {};
const socket = new WebSocket(url + path + query, { headers });
const send = (message) => socket.send(JSON.stringify(message));

socket.on("unexpected-response", (_, response) => {
  let body = "";
  response.on("data", (part) => (body += part));
  response.on("end", () => {
    say("refused", { status: response.statusCode, body: JSON.parse(body) });
    process.exit(0);
  });
});
socket.on("error", (error) => fail(String(error)));
socket.on("close", (code, reason) => {
  say("closed", { code, reason: reason.toString() });
  process.exit(0);
});
socket.on("open", () => {
  say("open", { extensions: socket.extensions });
  if (options.by === "message") send({ type: "auth", token: options.token });
  else begin();
});

function begin() {
  if (role === "camera") {
    const wish = { type: "register", clientType: "mobile", produces: ["video-frame", "alert"], consumes: ["alert"] };
    if (options.streamId) wish.streamId = options.streamId;
    send(wish);
  } else {
    send({
      type: "subscribe",
      clientType: "dashboard",
      streamId: options.streamId,
      consumes: options.consumes ?? ["video-frame", "alert"],
      format: options.format,
      ...(options.window ? { window: options.window } : {}),
    });
  }
}

function publish(streamId) {
  for (let n = 1; n <= options.frames; n += 1) {
    const timestamp = 1_729_943_200_000 + n;
    if (options.format === "binary") socket.send(pack(JPEG, { timestamp }));
    else send({ type: "video-frame", streamId, data: (options.prefix ?? "") + JPEG.toString("base64"), timestamp });
  }
  if (options.alert) send({ type: "alert", streamId, severity: "critical", message: options.alert });
  say("published");
}

let frames = 0;
function countFrame(frame) {
  frames += 1;
  say("frame", frame);
  if (options.window) send({ type: "ack", streamId: frame.streamId, frameId: frame.frameId });
  if (frames === options.frames) {
    send({ type: "unsubscribe", streamId: frame.streamId });
    socket.close(1000, "seen enough");
  }
}

socket.on("message", (data, isBinary) => {
  if (isBinary) return countFrame(unpack(data));
  const message = JSON.parse(data.toString());
  switch (message.type) {
    case "success":
      say("success", message);
      if (message.message === "Authentication successful") begin();
      else if (role === "camera") {
        // The old habit: the id is cut out of the text.
        const found = message.message.match(/Stream ID: (stream_\w+)/);
        const streamId = found ? found[1] : message.streamId;
        say("registered", { streamId, same: streamId === message.streamId });
        if (options.waitFor) {
          createInterface({ input: process.stdin }).on("line", (line) => {
            if (line === options.waitFor) publish(streamId);
            if (line === "end") socket.close();
          });
        } else publish(streamId);
      }
      return;
    case "video-frame":
      return countFrame({
        streamId: message.streamId,
        frameId: message.frameId,
        timestamp: message.timestamp,
        data: message.data,
      });
    default:
      say(message.type, message);
  }
});

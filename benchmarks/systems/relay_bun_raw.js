// The least that Bun can do for frames: `bun relay_bun_raw.js PORT`. Each message is published as it came, text or binary.
//
// No users, no frame ids, nothing is looked at: who publishes and who subscribes stands in the URL, as with Nchan.

const [port] = process.argv.slice(2);

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  fetch(request, server) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname !== "/pub" && pathname !== "/sub") return new Response("", { status: 404 });
    const data = { id: searchParams.get("id"), camera: pathname === "/pub" };
    if (server.upgrade(request, { data })) return;
    return new Response("WebSocket only", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: 16 << 20,
    backpressureLimit: 16 << 20, // a viewer behind this misses frames
    idleTimeout: 0,
    sendPings: false,
    open(ws) {
      if (!ws.data.camera) ws.subscribe(ws.data.id);
    },
    message(ws, message) {
      if (ws.data.camera) server.publish(ws.data.id, message);
    },
  },
});

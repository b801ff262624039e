// A phone's camera on the built @watchout/client, with a socket as React Native has it: it says of nothing that it waits,
// takes no base64 and no Blob apart, and queues whatever it is given. Arguments: module, URL, token, stream, form, bytes.
import process from "node:process";

const [module, url, token, streamId, form, bytes] = process.argv.slice(2);
const { Watchout } = await import(module);

class NativeSocket {
  #socket;
  binaryType = undefined;
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  constructor(address) {
    this.#socket = new WebSocket(address);
    this.#socket.binaryType = "arraybuffer";
    for (const name of ["open", "message", "close", "error"]) {
      this.#socket[`on${name}`] = ({ data, code, reason }) => this[`on${name}`]?.({ data, code, reason });
    }
  }
  get readyState() {
    return this.#socket.readyState;
  }
  send(data) {
    // React Native carries bytes to the native side as base64, and copies them there.
    this.#socket.send(typeof data === "string" ? data : Buffer.from(Buffer.from(data.buffer ?? data, data.byteOffset, data.byteLength).toString("base64"), "base64"));
  }
  close(code, reason) {
    this.#socket.close(code, reason);
  }
}

const camera = new Watchout(url, { token, WebSocket: NativeSocket }).camera({ streamId });
const picture = new Uint8Array(Number(bytes)).map((_, at) => [0xff, 0xd8, 0xff][at] ?? (at * 31) % 251);
camera.on("error", (error) => console.error(String(error)));
while (await camera.ready()) {
  const timestamp = Date.now();
  camera.send(form === "base64" ? Buffer.from(picture).toString("base64") : picture, { timestamp });
}

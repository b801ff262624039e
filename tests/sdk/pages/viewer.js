// A page of tiles; the tests call its functions.
import { Watchout, attach, setWorkerUrl } from "/client/browser/index.js";

if (location.search === "?no-worker") setWorkerUrl("/nowhere.js");

const tiles = new Map();

/** The number on a canvas (tests/kit/numbered.py), or null. */
const readNumber = (canvas) => {
  if (!canvas.width || !canvas.height) return null;
  const copy = document.createElement("canvas");
  copy.width = 160; copy.height = 120;
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0, copy.width, copy.height);
  const { data } = pen.getImageData(0, 0, copy.width, copy.height);
  let number = 0;
  for (let bit = 0; bit < 16; bit += 1) {
    const x = 20 + 40 * (bit % 4), y = 15 + 30 * Math.floor(bit / 4);
    number = number * 2 + (data[4 * (y * copy.width + x)] > 127 ? 1 : 0);
  }
  return data[3] === 0 ? null : number;
};

window.alerts = [];
window.states = [];

window.start = (url, token, options = {}) => {
  const own = location.search === "?own-socket" ? { WebSocket } : {};
  window.client = new Watchout(url, { token, ...own, ...options });
  window.client.on("state", (event) => window.states.push(event.state));
};

window.show = (id, { width = 320, viewOptions = {}, ...options } = {}) => {
  const canvas = document.createElement("canvas");
  canvas.style.width = `${width}px`;
  canvas.style.height = `${(width * 3) / 4}px`;
  document.body.append(canvas);
  const view = window.client.view(id, viewOptions);
  view.on("alert", (alert) => window.alerts.push(alert.message));
  const attachment = attach(view, canvas, options);
  const tile = { canvas, view, attachment, ages: [], states: [] };
  attachment.on("status", ({ state }) => tile.states.at(-1) === state || tile.states.push(state));
  tiles.set(id, tile);
};
window.resize = (id, width) => Object.assign(tiles.get(id).canvas.style, { width: `${width}px`, height: `${(width * 3) / 4}px` });
window.tile = (id) => tiles.get(id);
window.statusOf = (id) => tiles.get(id).attachment.status;
window.numberOn = (id) => readNumber(tiles.get(id).canvas);
window.pixelsOf = async (id) => {
  const bitmap = await createImageBitmap(tiles.get(id).canvas); // the size of a canvas that a worker has is not told
  const size = [bitmap.width, bitmap.height];
  bitmap.close();
  return size;
};
/**
 * How far what a canvas shows is from what the browser makes of a file; null: it is no picture.
 * `mean` of all differences, and how much brighter the canvas is in `red`, `green` and `blue`; of 255.
 */
window.differenceOn = async (id, base64) => {
  const file = new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))]);
  const picture = await createImageBitmap(file).catch(() => null);
  if (picture === null) return null;
  const { width, height } = picture;
  const [expected, shown] = [picture, tiles.get(id).canvas].map((source) => {
    const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    pen.drawImage(source, 0, 0, width, height);
    return pen.getImageData(0, 0, width, height).data;
  });
  picture.close();
  const sums = [0, 0, 0, 0];
  let mean = 0;
  shown.forEach((value, at) => {
    sums[at % 4] += (value - expected[at]) / (width * height);
    mean += Math.abs(value - expected[at]) / shown.length;
  });
  return { width, height, mean, red: sums[0], green: sums[1], blue: sums[2] };
};
window.hide = (id) => {
  const { view, attachment, canvas } = tiles.get(id);
  attachment.close();
  view.close();
  canvas.remove();
  tiles.delete(id);
};
window.away = (id, away) => {
  tiles.get(id).canvas.style.marginTop = away ? "5000px" : "";
};
/** Ask every tile for its age, ten times a second, for so long. */
window.agesFor = async (ms) => {
  const ages = [];
  const end = performance.now() + ms;
  while (performance.now() < end) {
    await new Promise((done) => setTimeout(done, 100));
    for (const { attachment } of tiles.values()) ages.push(attachment.status.ageMs);
  }
  return ages;
};
window.loaded = true;

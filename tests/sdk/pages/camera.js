// A page that is a camera; the tests call its functions.
import { Watchout, capture, openMedia } from "/client/browser/index.js";

window.states = [];
window.start = (url, token) => {
  window.client = new Watchout(url, { token });
};
window.publish = async (streamId, { constraints, ...options } = {}) => {
  window.media = await openMedia(constraints);
  window.camera = window.client.camera({ streamId });
  window.cap = capture(window.camera, window.media, options);
  window.cap.on("status", ({ state }) => window.states.at(-1) === state || window.states.push(state));
};
window.tracks = () => window.media.getTracks().map((track) => track.readyState);
window.open_ = (constraints) => openMedia(constraints).then(
  () => "opened",
  (error) => [error.name, error.fault, error.message],
);
window.loaded = true;

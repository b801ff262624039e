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
// When a rate was wanted after none was, and when the first picture after that went out, in ms of the page's clock.
window.watchReturns = () => {
  const { camera } = window;
  const send = camera.send.bind(camera);
  let wanted = (camera.demand?.fps ?? 0) > 0;
  let since;
  window.returns = [];
  camera.on("demand", ({ fps }) => {
    since = fps > 0 && !wanted ? performance.now() : since;
    wanted = fps > 0;
  });
  camera.send = (...given) => {
    if (since !== undefined) window.returns.push(performance.now() - since);
    since = undefined;
    return send(...given);
  };
};
window.tracks = () => window.media.getTracks().map((track) => track.readyState);
window.open_ = (constraints) => openMedia(constraints).then(
  () => "opened",
  (error) => [error.name, error.fault, error.message],
);
window.loaded = true;

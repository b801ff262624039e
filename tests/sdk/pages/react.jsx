// A React app with the components of @watchout/react; the tests call its functions.
import { StrictMode, useRef } from "react";
import { createRoot } from "react-dom/client";
import { CameraPublisher, LiveView, WatchoutProvider, useAlerts, useConnection, useStream, useStreams } from "@watchout/react";

window.facts = {};
window.renders = 0;

function Facts({ id }) {
  const renders = useRef(0);
  renders.current += 1;
  window.renders += 1;
  window.facts = {
    stream: useStream(id),
    connection: useConnection().state,
    streams: useStreams({ everyMs: 1000 }).streams.map((stream) => stream.id),
    alerts: useAlerts(id).map((alert) => [alert.message, alert.acknowledgedBy?.note ?? null]),
  };
  return null;
}

const box = { width: "160px", height: "120px" };
let root;

window.mount = (url, token, id, { camera, facts = true, callback = false, fit } = {}) => {
  const element = document.createElement("main");
  document.body.append(element);
  root = { react: createRoot(element), element };
  window.tokens = 0;
  root.react.render(
    <StrictMode>
      <WatchoutProvider url={url} token={callback ? () => ((window.tokens += 1), token) : token}>
        {camera ? (
          <CameraPublisher streamId={id} onStatus={(status) => (window.published = status)} />
        ) : (
          <LiveView id={id} style={box} fit={fit} onStatus={(status) => (window.tile = status)} />
        )}
        {facts && <Facts id={id} />}
      </WatchoutProvider>
    </StrictMode>,
  );
};
window.unmount = () => {
  root.react.unmount();
  root.element.remove();
};
/** Mount and unmount, each time after the browser had a moment. */
window.often = async (times, ...options) => {
  for (let time = 0; time < times; time += 1) {
    window.mount(...options);
    await new Promise((done) => setTimeout(done, time % 10));
    window.unmount();
  }
};
window.loaded = true;

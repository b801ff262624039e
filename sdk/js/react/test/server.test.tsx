/** On a server there is no window, no socket and no worker: the components render, and leave nothing behind. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { renderToString } from "react-dom/server";
import { CameraPublisher, LiveView, WatchoutProvider, useAlerts, useConnection, useStream, useStreams } from "@watchout/react";

function Facts() {
  const { status, ageMs, fps } = useStream("cam-1");
  return <p>{`${useConnection().state} ${status} ${ageMs} ${fps} ${useAlerts("cam-1").length} ${useStreams().streams.length}`}</p>;
}

test("components and hooks render without a window, and open nothing", () => {
  assert.equal(typeof window, "undefined");
  const html = renderToString(
    <WatchoutProvider url="https://example.com" token={() => assert.fail("nobody asks for a token on a server")}>
      <LiveView id="cam-1" label="Front door" />
      <CameraPublisher streamId="cam-2" />
      <Facts />
    </WatchoutProvider>,
  );
  assert.match(html, /role="img" aria-label="Front door: waiting for the camera"/);
  assert.match(html, /<video[^>]*muted/);
  assert.match(html, /idle waiting null 0 0 0/);
});

test("a component without a provider says what it needs", () => {
  assert.throws(() => renderToString(<LiveView id="cam-1" />), /WatchoutProvider/);
});

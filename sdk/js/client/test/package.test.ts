import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { WatchoutError } from "../dist/index.js";
// @ts-expect-error a script without types
import { bundledSize } from "../../scripts/size.mjs";
// @ts-expect-error a script without types
import { generate } from "../../scripts/generate.mjs";
import { Stage } from "./stage.js";

test("the bundled client has at most 12 kB, gzip", async () => {
  const size = await bundledSize();
  assert.ok(size <= 12_000, `${size} bytes`);
});

test("there is no dependency at run time", () => {
  const about = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  assert.deepEqual(Object.keys(about.dependencies ?? {}), []);
});

test("a keyword of the schema that has no type is a fault, not left out", () => {
  assert.throws(() => generate({ $defs: { A: { type: "string", format: "uuid" } } }), /format/);
});

test("requests over HTTP have the token, and errors their code", async () => {
  const asked: [string, RequestInit | undefined][] = [];
  let answer = new Response("");
  const stage = new Stage({
    fetch: ((url: string, init?: RequestInit) => {
      asked.push([url, init]);
      return Promise.resolve(answer);
    }) as typeof fetch,
  });
  answer = Response.json({ streams: [{ id: "cam-1" }] });
  assert.deepEqual(await stage.watchout.streams(), [{ id: "cam-1" }]);
  assert.equal(asked[0]?.[0], "https://gateway.example/base/streams");
  assert.equal((asked[0]?.[1]?.headers as Record<string, string>)["Authorization"], "Bearer t");
  answer = Response.json({ alerts: [] });
  await stage.watchout.alerts({ streamId: "cam-1", since: 5, order: "desc", limit: undefined as never });
  assert.equal(asked[1]?.[0], "https://gateway.example/base/alerts?streamId=cam-1&since=5&order=desc");
  answer = Response.json({ error: { code: "UNAUTHORIZED", message: "no" } }, { status: 403 });
  await assert.rejects(stage.watchout.share("cam-1", { seconds: 60 }), (error) => error instanceof WatchoutError && error.code === "UNAUTHORIZED" && !error.retryable);
  answer = new Response("<html>", { status: 502 });
  await assert.rejects(stage.watchout.shares("cam-1"), (error) => error instanceof WatchoutError && error.code === "HTTP_502" && error.retryable);
  await stage.close();
});

test("a refused token is replaced once, by one call for all requests and sockets", async () => {
  const good = new Set(["t1"]);
  const calls: string[] = [];
  let give: (token: string | null) => void = () => undefined;
  let fail: (error: Error) => void = () => undefined;
  const asked: (string | undefined)[] = [];
  const stage = new Stage({
    token: (why) => {
      calls.push(why);
      return new Promise((resolve, reject) => ([give, fail] = [resolve, reject]));
    },
    fetch: (async (_: string, init?: RequestInit) => {
      const token = (init?.headers as Record<string, string>)["Authorization"]?.slice(7);
      asked.push(token);
      if (good.has(token ?? "")) return Response.json({ streams: [] });
      return Response.json({ error: { code: "AUTH_FAILED", message: "not valid" } }, { status: 401 });
    }) as typeof fetch,
  });
  const { watchout, clock } = stage;
  const refused = (error: unknown): boolean => error instanceof WatchoutError && error.code === "AUTH_FAILED" && !error.retryable;
  watchout.view("cam-1");
  await stage.run();
  give("t1");
  await stage.run();
  assert.equal(watchout.state, "online");

  // Revoked: requests notice it first, then the socket is closed, and all wait for the same call.
  good.clear();
  const requests = [watchout.streams(), watchout.streams(), watchout.alerts().catch(() => [])];
  await clock.advance(0);
  stage.network.last().end(4500, "SESSION_ENDED");
  await clock.advance(0);
  assert.deepEqual(calls, ["connect", "rejected"]);
  good.add("t2");
  give("t2");
  await Promise.all(requests);
  await stage.run();
  assert.equal(stage.sent("auth").at(-1).token, "t2");
  assert.equal(watchout.state, "online");
  assert.deepEqual(asked, ["t1", "t1", "t1", "t2", "t2", "t2"]);
  assert.deepEqual(calls, ["connect", "rejected"]);

  // The next one is no better: each request has asked once, and says what the server says.
  good.clear();
  const worse = assert.rejects(watchout.streams(), refused);
  await clock.advance(0);
  give("t3");
  await worse;
  assert.deepEqual(asked.slice(6), ["t2", "t3"]);
  const failing = assert.rejects(watchout.streams(), refused);
  await clock.advance(0);
  fail(new Error("no network"));
  await failing;
  const signedOut = assert.rejects(watchout.streams(), refused);
  await clock.advance(0);
  give(null);
  await signedOut;
  assert.deepEqual(asked.slice(8), ["t3", "t3"]);
  assert.deepEqual(calls, ["connect", "rejected", "rejected", "rejected", "rejected"]);
  const unavailable = assert.rejects(watchout.streams(), (error) => error instanceof WatchoutError && error.code === "TOKEN_UNAVAILABLE" && error.retryable);
  await clock.advance(0);
  fail(new Error("no network"));
  await unavailable;
  assert.equal(asked.length, 10, "without a token nothing is asked");
  await stage.close();
});

test("a token that is a text is sent once", async () => {
  let count = 0;
  const stage = new Stage({
    fetch: (async () => (count++, Response.json({ error: { code: "AUTH_FAILED", message: "not valid" } }, { status: 401 }))) as typeof fetch,
  });
  await assert.rejects(stage.watchout.streams(), (error) => error instanceof WatchoutError && error.code === "AUTH_FAILED");
  assert.equal(count, 1);
  await stage.close();
});

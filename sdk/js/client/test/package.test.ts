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

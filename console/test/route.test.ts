import assert from "node:assert/strict";
import { test } from "node:test";
import { formatRoute, HOME, linkWith, parseRoute, takeCredential, type Route } from "../src/pure/route";

const ROUTES: Route[] = [
  HOME,
  { view: "live", streams: ["a", "b:c", "d.e"], size: "large", saving: true },
  { view: "stream", id: "cam-1:left" },
  { view: "alerts", severity: "low", stream: null, open: false, alert: null },
  { view: "alerts", severity: "critical", stream: "cam", open: true, alert: "id with spaces/and?signs#" },
  { view: "camera" },
  { view: "sharing", stream: null },
  { view: "sharing", stream: "cam" },
  { view: "health" },
];

test("every address reads back as the view that it was made of", () => {
  for (const route of ROUTES) assert.deepEqual(parseRoute(formatRoute(route)), route);
});

test("an address that cannot be read is the live view", () => {
  for (const text of ["", "#", "#/", "#/nothing", "#/stream", "#/stream/%zz", "#/stream/a b", `#/stream/${"x".repeat(129)}`, "#?%"])
    assert.deepEqual(parseRoute(text), HOME);
});

test("a layout has no stream twice, none that cannot be one, and at most a hundred", () => {
  const many = Array.from({ length: 300 }, (_, index) => `s${index}`).join(",");
  const route = parseRoute(`#/live?streams=a,a,b c,,../x,${many}&size=huge&saving=yes`);
  assert.equal(route.view, "live");
  if (route.view !== "live") return;
  assert.equal(route.streams?.length, 100);
  assert.deepEqual(route.streams?.slice(0, 2), ["a", "s0"]);
  assert.deepEqual([route.size, route.saving], ["medium", false]);
});

test("a credential is taken out of the address, wherever it stands in the fragment", () => {
  const cases: [string, string | null, string, string, boolean?][] = [
    ["#token=abc", "token", "abc", ""],
    ["#ticket=t1", "ticket", "t1", ""],
    ["#share=s1&stream=cam", "token", "s1", "#/stream/cam", true],
    ["#/stream/cam?share=s%2B1", "token", "s+1", "#/stream/cam", true],
    ["#/live?size=large&token=a.b.c", "token", "a.b.c", "#/live?size=large"],
    ["#/live?token=a&share=b&ticket=c", "token", "a", "#/live"],
    ["#/live?size=small", null, "", "#/live?size=small"],
    ["#/camera", null, "", "#/camera"],
    ["", null, "", ""],
    ["#token=", null, "", ""],
  ];
  for (const [fragment, kind, value, rest, shared = false] of cases) {
    const found = takeCredential(fragment);
    assert.deepEqual(found.credential, kind === null ? null : { kind, value, shared }, fragment);
    assert.equal(found.rest, rest, fragment);
    for (const secret of ["token=", "share=", "ticket="]) assert.ok(!found.rest.includes(secret), fragment);
  }
});

test("a link keeps its credential behind the number sign, and gives it back", () => {
  const link = linkWith("https://host/prefix/?x=1#/sharing", "share", "a+b/c=", { view: "stream", id: "cam" });
  const [before, fragment] = link.split("#");
  assert.equal(before, "https://host/prefix/?x=1");
  assert.deepEqual(takeCredential(`#${fragment}`), {
    credential: { kind: "token", value: "a+b/c=", shared: true },
    rest: "#/stream/cam",
  });
});

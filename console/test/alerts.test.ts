import assert from "node:assert/strict";
import { test } from "node:test";
import * as lists from "../src/pure/alerts";
import type { Alert } from "../src/pure/alerts";

function alert(id: string, timestamp: number, more: Partial<Alert> = {}): Alert {
  return { id, streamId: "cam", severity: "high", message: id, timestamp, frameId: null, metadata: {}, acknowledged: null, ...more };
}
const BY = { userId: "ann", note: "seen", timestamp: 9 };
const ids = (alerts: readonly Alert[]) => alerts.map((each) => each.id);

test("an alert is read from what the server sends, and nothing else is one", () => {
  const read = lists.readAlert({
    type: "alert", id: "a", streamId: "cam", severity: "low", message: "m", timestamp: 5, frameId: 7,
    metadata: { confidence: 0.5 }, acknowledged: { userId: "ann", timestamp: 9, note: "seen" }, extra: 1,
  });
  assert.deepEqual(read, alert("a", 5, { severity: "low", message: "m", frameId: 7, metadata: { confidence: 0.5 }, acknowledged: BY }));
  for (const bad of [null, 1, "x", [], {}, { id: "a" }, { id: "", streamId: "cam", severity: "low" }, { id: "a", streamId: "cam", severity: "odd" }])
    assert.equal(lists.readAlert(bad), null);
  assert.equal(lists.readAlert({ id: "a", streamId: "cam", severity: "low", metadata: 5, timestamp: "x", acknowledged: "x" })?.acknowledged, null);
});

test("each alert is once in the list, newest first, and one id of two streams is two", () => {
  let { list, added } = lists.merge(lists.EMPTY, [alert("a", 1), alert("b", 3)], true);
  assert.deepEqual(ids(added), ["a", "b"]);
  ({ list, added } = lists.merge(list, [alert("a", 1), alert("c", 2), alert("a", 4, { streamId: "other" })], true));
  assert.deepEqual(ids(added), ["c", "a"]);
  assert.deepEqual(ids(list.alerts), ["a", "b", "c", "a"]);
  assert.equal(list.unseen.size, 4);
  assert.equal(lists.merge(list, [alert("a", 1)], true).list, list, "nothing new changes nothing");
});

test("alerts that were there before the page are not new to its reader", () => {
  assert.equal(lists.merge(lists.EMPTY, [alert("a", 1)], false).list.unseen.size, 0);
});

test("the list has a bound, the oldest go, and what is gone is not unseen", () => {
  const many = Array.from({ length: lists.MOST_ALERTS + 5 }, (_, index) => alert(`a${index}`, index));
  const { list } = lists.merge(lists.EMPTY, many, true);
  assert.equal(list.alerts.length, lists.MOST_ALERTS);
  assert.equal(list.alerts.at(-1)?.id, "a5");
  assert.equal(list.unseen.size, lists.MOST_ALERTS);
});

test("the first acknowledgement counts, from a socket and from a fetched list", () => {
  let { list } = lists.merge(lists.EMPTY, [alert("a", 1), alert("b", 2)], true);
  list = lists.acknowledge(list, "cam a", BY);
  assert.deepEqual(list.alerts[1]?.acknowledged, BY);
  assert.equal(lists.acknowledge(list, "cam a", { ...BY, userId: "bob" }), list);
  assert.equal(lists.acknowledge(list, "cam none", BY), list);
  list = lists.merge(list, [alert("b", 2, { acknowledged: BY })], false).list;
  assert.deepEqual(list.alerts[0]?.acknowledged, BY);
});

test("what was looked at is not unseen", () => {
  const { list } = lists.merge(lists.EMPTY, [alert("a", 1), alert("b", 2)], true);
  assert.deepEqual([...lists.seen(list, ["cam a"]).unseen], ["cam b"]);
  assert.equal(lists.seen(list, ["cam none"]), list);
});

test("a filter keeps severities from its own up, one stream, and open ones", () => {
  const all = [alert("a", 1, { severity: "low" }), alert("b", 2, { severity: "critical" }), alert("c", 3, { streamId: "x", acknowledged: BY })];
  assert.deepEqual(ids(lists.filtered(all, { severity: "low", stream: null, open: false })), ["a", "b", "c"]);
  assert.deepEqual(ids(lists.filtered(all, { severity: "high", stream: null, open: false })), ["b", "c"]);
  assert.deepEqual(ids(lists.filtered(all, { severity: "low", stream: "x", open: false })), ["c"]);
  assert.deepEqual(ids(lists.filtered(all, { severity: "low", stream: null, open: true })), ["a", "b"]);
});

test("the keys move through the list and stop at its ends", () => {
  const all = [alert("a", 3), alert("b", 2), alert("c", 1)];
  assert.equal(lists.neighbour(all, null, 1)?.id, "a");
  assert.equal(lists.neighbour(all, "cam gone", -1)?.id, "a");
  assert.equal(lists.neighbour(all, "cam a", 1)?.id, "b");
  assert.equal(lists.neighbour(all, "cam c", 1)?.id, "c");
  assert.equal(lists.neighbour(all, "cam a", -1)?.id, "a");
  assert.equal(lists.neighbour([], null, 1), null);
});

test("after an acknowledgement the next open one is chosen, below or else above", () => {
  const all = [alert("a", 4), alert("b", 3), alert("c", 2, { acknowledged: BY }), alert("d", 1)];
  assert.equal(lists.nextOpen(all, "cam b")?.id, "d");
  assert.equal(lists.nextOpen(all, "cam d")?.id, "b");
  assert.equal(lists.nextOpen([alert("a", 1)], "cam a"), null);
});

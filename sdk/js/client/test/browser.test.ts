/** What decides in the browser part: freshness, newest wins, sizes, rates, the uplink, and when the page gets copies. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Copies } from "../dist/browser/copies.js";
import { isPlainJpeg } from "../dist/browser/decode.js";
import { Freshness } from "../dist/browser/freshness.js";
import { paintSize } from "../dist/browser/geometry.js";
import { NewestPicture, type Outcome, type Shown } from "../dist/browser/newest.js";
import { Pace } from "../dist/browser/pace.js";
import type { PageWorker } from "../dist/browser/page-worker.js";
import { Uplink } from "../dist/browser/uplink.js";

const START = 1_700_000_000_000;

/** Frames at a steady rate whose camera's clock is ahead by `ahead` and whose way takes `way`; returns the time after. */
function flow(fresh: Freshness, { from = START, count = 30, everyMs = 100, ahead = 0, way = 50 } = {}): number {
  for (let each = 0; each < count; each += 1) fresh.note(from + each * everyMs + ahead, from + each * everyMs + way);
  return from + (count - 1) * everyMs + way;
}

test("the age is that of the frame, and goes on without frames", () => {
  const fresh = new Freshness();
  assert.equal(fresh.ageMs(START), null);
  assert.equal(fresh.isStale(START), true);
  const end = flow(fresh);
  assert.equal(fresh.ageMs(end), 50);
  assert.equal(fresh.isStale(end), false);
  assert.equal(fresh.fps(end), 10);
  assert.equal(fresh.ageMs(end + 2_900), 2_950);
  assert.equal(fresh.isStale(end + 2_900), false);
  assert.equal(fresh.isStale(end + 3_000), true);
  assert.equal(fresh.fps(end + 4_000), 0);
});

test("frames that come, but late, make a picture stale: no clock can hide it", () => {
  const fresh = new Freshness();
  flow(fresh, { way: 100 });
  const end = flow(fresh, { from: START + 3_000, way: 9_000 });
  assert.ok((fresh.ageMs(end) ?? 0) >= 9_000);
  assert.equal(fresh.isStale(end), true);
});

test("a camera whose clock is off is judged by its quickest frame", () => {
  for (const ahead of [-3_600_000, -10_000, 10_000, 3_600_000]) {
    const fresh = new Freshness();
    const end = flow(fresh, { ahead });
    assert.ok((fresh.ageMs(end) ?? -1) < 10, `${ahead}: ${fresh.ageMs(end)}`);
    assert.equal(fresh.isStale(end), false, String(ahead));
    assert.equal(fresh.isStale(end + 4_000), true, String(ahead));
  }
});

test("the first frame after a subscription may be old, and proves nothing about clocks", () => {
  const fresh = new Freshness();
  fresh.note(START - 3_600_000, START);
  assert.equal(fresh.ageMs(START), 3_600_000);
  assert.equal(fresh.isStale(START), true);
  const end = flow(fresh, { from: START + 100 });
  assert.equal(fresh.ageMs(end), 50);
  fresh.restart();
  fresh.note(START, end + 60_000);
  assert.ok((fresh.ageMs(end + 60_000) ?? 0) > 60_000);
  assert.equal(fresh.isStale(end + 60_000), true);
});

test("a slow stream is not stale between its frames", () => {
  const fresh = new Freshness();
  const end = flow(fresh, { everyMs: 5_000 });
  assert.equal(fresh.isStale(end + 5_000), false);
  assert.equal(fresh.isStale(end + 15_100), true);
});

function frame(frameId: number): Shown {
  return { frameId, timestamp: START, picture: new Uint8Array([frameId]) };
}

/** Pictures that are decoded when the test says so. */
function decoding() {
  const open = new Set<number>();
  const pending: { id: number; finish(ok: boolean): Promise<void> }[] = [];
  const painted: number[] = [];
  const outcomes: Outcome[] = [];
  const pictures = new NewestPicture(
    ([id = 0]) =>
      new Promise<{ width: number; height: number; id: number; close(): void }>((resolve, reject) => {
        const finish = async (ok: boolean): Promise<void> => {
          if (ok) {
            open.add(id);
            resolve({ id, width: 4, height: 3, close: () => open.delete(id) });
          } else reject(new Error("no picture"));
          await new Promise((done) => setImmediate(done));
        };
        pending.push({ id, finish });
      }),
    ({ id }) => {
      if (id === 13) throw new Error("the canvas is gone");
      painted.push(id);
    },
    (outcome) => outcomes.push(outcome),
  );
  return { pictures, pending, painted, outcomes, open };
}

test("one picture at a time, the newest of those that wait, and each is closed", async () => {
  const { pictures, pending, painted, outcomes, open } = decoding();
  for (let id = 1; id <= 5; id += 1) pictures.offer(frame(id));
  assert.deepEqual(pending.map(({ id }) => id), [1]);
  await pending[0]?.finish(true);
  assert.deepEqual(pending.map(({ id }) => id), [1, 5]);
  await pending[1]?.finish(true);
  assert.deepEqual(painted, [1, 5]);
  assert.deepEqual(outcomes.map((each) => [each.frame.frameId, each.replaced]), [[1, 3], [5, 0]]);
  assert.equal(open.size, 0);
});

test("what cannot be decoded or painted is told, and the next goes on", async () => {
  const { pictures, pending, painted, outcomes, open } = decoding();
  pictures.offer(frame(1));
  await pending[0]?.finish(false);
  pictures.offer(frame(13));
  await pending[1]?.finish(true);
  pictures.offer(frame(2));
  await pending[2]?.finish(true);
  assert.deepEqual(outcomes.map((each) => each.size?.width), [undefined, undefined, 4]);
  assert.deepEqual(painted, [2]);
  assert.equal(open.size, 0);
});

test("after the end nothing is painted or told, and what was being decoded is closed", async () => {
  const { pictures, pending, painted, outcomes, open } = decoding();
  pictures.offer(frame(1));
  pictures.offer(frame(2));
  pictures.end();
  await pending[0]?.finish(true);
  pictures.offer(frame(3));
  assert.deepEqual([painted.length, outcomes.length, open.size, pending.length], [0, 0, 0, 1]);
});

test("a JPEG is plain when it is small and has no part that turns it or changes its colours, up to its pixels", () => {
  const segment = (marker: number, body: readonly number[] = [7, 7, 7, 7]): number[] => [0xff, marker, 0, body.length + 2, ...body];
  const size = (width: number, height: number): number[] => segment(0xc0, [8, height >> 8, height & 255, width >> 8, width & 255, 3]);
  const jpeg = (...segments: number[][]): Uint8Array => new Uint8Array([0xff, 0xd8, ...segments.flat(), 1, 2, 3]);
  const [jfif, exif, icc, adobe, comment, tables, pixels] = [0xe0, 0xe1, 0xe2, 0xee, 0xfe, 0xdb, 0xda].map((marker) => segment(marker)) as [number[], number[], number[], number[], number[], number[], number[]];
  const small = size(640, 480);
  const whole = jpeg(jfif, comment, tables, small, pixels);
  assert.ok(isPlainJpeg(whole));
  assert.ok(isPlainJpeg(jpeg(segment(0xc2, small.slice(4)), pixels, exif)));
  for (const part of [exif, icc, adobe]) {
    assert.ok(!isPlainJpeg(jpeg(part, jfif, small, pixels)));
    assert.ok(!isPlainJpeg(jpeg(jfif, small, tables, part, pixels)));
  }
  for (const [width, height] of [[640, 481], [641, 480], [65_535, 65_535], [0, 480], [640, 0]] as const) {
    assert.ok(!isPlainJpeg(jpeg(jfif, size(width, height), pixels)), `${width} × ${height}`);
  }
  assert.ok(!isPlainJpeg(jpeg(jfif, pixels)));
  for (let length = 0; length < whole.length - 9; length += 1) assert.ok(!isPlainJpeg(whole.subarray(0, length)));
  assert.ok(!isPlainJpeg(new Uint8Array([0x89, 0x50, 0x4e, 0x47])));
  assert.ok(!isPlainJpeg(new Uint8Array([0xff, 0xd8, ...new Array<number>(100_000).fill(0xff)])));
  assert.ok(!isPlainJpeg(new Uint8Array([0xff, 0xd8, ...new Array<number[]>(50_000).fill([0xff, 0xdb]).flat(), 0, 0])));
});

test("a picture is painted with the pixels that are seen, and keeps its aspect", () => {
  const picture = { width: 640, height: 480 };
  assert.deepEqual(paintSize(picture, { width: 320, height: 320 }, "contain"), { width: 320, height: 240 });
  assert.deepEqual(paintSize(picture, { width: 320, height: 320 }, "cover"), { width: 427, height: 320 });
  for (const box of [undefined, { width: 0, height: 0 }, { width: 4_000, height: 4_000 }]) {
    assert.deepEqual(paintSize(picture, box, "contain"), picture);
  }
  assert.deepEqual(paintSize(picture, { width: 1, height: 1 }, "contain"), { width: 1, height: 1 });
});

test("the wanted rate comes out of whatever rate the camera has", () => {
  for (const [camera, wanted, expected] of [[30, 15, 15], [30, 10, 10], [25, 10, 10], [30, 60, 30], [24, 5, 5], [30, 0, 0]] as const) {
    const pace = new Pace();
    let taken = 0;
    for (let at = 0; at < 20_000; at += 1_000 / camera) if (pace.isDue(at, wanted)) taken += 1;
    assert.ok(Math.abs(taken / 20 - expected) < expected * 0.1 + 0.01, `${camera} to ${wanted}: ${taken / 20}`);
  }
  const pace = new Pace();
  assert.equal(pace.isDue(0, 0.1), true);
  assert.equal(pace.isDue(200, 10), true, "a rate that rises counts at once");
});

/** A camera of 30 pictures a second with two under way, on a link of so many bytes a second and this round trip. */
function publish(uplink: Uplink, { seconds, rate, roundTripMs, full }: { seconds: number; rate: (s: number) => number; roundTripMs: number; full: number }) {
  const waiting: { timestamp: number; arrivesAt: number; ackAt: number }[] = [];
  const ages: { at: number; ms: number }[] = [];
  let freeAt = 0;
  for (let now = 0; now < seconds * 1_000; now += 33) {
    while (waiting[0] !== undefined && waiting[0].ackAt <= now) {
      const { timestamp, arrivesAt } = waiting.shift() as (typeof waiting)[number];
      uplink.acknowledged(timestamp, now);
      ages.push({ at: arrivesAt, ms: arrivesAt - timestamp });
    }
    if (waiting.length >= 2) continue;
    const { maxSide, quality } = uplink.encoding;
    const bytes = 1_500 + full * (maxSide / uplink.maxSide) ** 2 * (quality / uplink.quality);
    freeAt = Math.max(freeAt, now) + (bytes * 1_000) / rate(now / 1_000);
    uplink.sent(now, now);
    waiting.push({ timestamp: now, arrivesAt: freeAt + roundTripMs / 2, ackAt: freeAt + roundTripMs });
  }
  return ages;
}

test("behind any uplink pictures stay fresh, and a quick one carries all that was allowed", () => {
  for (const roundTripMs of [5, 100, 300]) {
    for (const rate of [30_000, 60_000, 200_000, 1_000_000]) {
      const ages = publish(new Uplink(1280, 0.8), { seconds: 60, rate: () => rate, roundTripMs, full: 90_000 });
      const old = ages.filter(({ ms }) => ms > 1_500);
      assert.ok(ages.length > 60, `${rate} ${roundTripMs}: ${ages.length} pictures in a minute`);
      assert.deepEqual(old, [], `${rate} bytes a second, ${roundTripMs} ms`);
    }
  }
  const quick = new Uplink(1280, 0.8);
  publish(quick, { seconds: 10, rate: () => 5_000_000, roundTripMs: 20, full: 90_000 });
  assert.deepEqual([quick.step, quick.encoding], [0, { maxSide: 1280, quality: 0.8 }]);
});

test("an uplink that becomes slow is noticed with the pictures that are under way, and one that recovers is used again", () => {
  const uplink = new Uplink(1280, 0.8);
  const rate = (s: number): number => (s >= 20 && s < 40 ? 60_000 : 5_000_000);
  const ages = publish(uplink, { seconds: 120, rate, roundTripMs: 20, full: 90_000 });
  const late = ages.filter(({ ms }) => ms > 1_500);
  assert.ok(late.length <= 3, JSON.stringify(late));
  assert.equal(uplink.step, 0);
});

test("acknowledgements that nobody waits for, or none at all, change nothing", () => {
  const uplink = new Uplink(640, 0.8);
  const { step } = uplink;
  uplink.acknowledged(5, 10);
  for (let each = 0; each < 1_000; each += 1) uplink.sent(each, each);
  uplink.restart();
  uplink.acknowledged(999, 2_000);
  assert.equal(uplink.step, step);
});

test("the page gets copies of frames only while an app loops over them beside a tile", () => {
  const posted: boolean[] = [];
  const worker = { post: ({ copy }: { copy: boolean }) => posted.push(copy) } as unknown as PageWorker;
  const shown: number[] = [];
  const copies = new Copies(1, (_, frames) => shown.push(frames));
  const [tiled, other] = [{ streamId: "a" }, { streamId: "a" }];
  copies.setReaders(other, 1); // no tile: the worker passes the frames on anyway
  copies.setReaders(other, 0);
  const leave = copies.addTile("a", worker);
  copies.setReaders(tiled, 1); // the tile's own
  assert.deepEqual(posted, []);
  copies.setReaders(other, 1);
  copies.setReaders(tiled, 2);
  assert.deepEqual(posted, [true]);
  copies.setReaders(other, 0);
  copies.setReaders(tiled, 1);
  assert.deepEqual(posted, [true, false]);
  const note = {};
  copies.note("a", note, 3);
  copies.note("a", note, 3); // another tile of the stream
  copies.note("a", {}, 2);
  assert.deepEqual(shown, [3, 2]);
  leave();
  assert.deepEqual(posted, [true, false]);
});

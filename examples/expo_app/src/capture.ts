/** Takes pictures while somebody watches and the network keeps up; the phone encodes and sends nothing else. */

import type { Camera } from "@watchout/client";

/** Takes one picture: its JPEG as base64, as React Native hands pictures over. */
export type TakePicture = () => Promise<string>;

export interface CaptureOptions {
  /** Most pictures per second, whatever viewers ask for. Default 5. */
  readonly maxFps?: number;
  /** Called when a picture cannot be taken; the next one is tried after a second. */
  readonly onError?: (error: unknown) => void;
}

/** After a picture that could not be taken, in ms. */
const RETRY_MS = 1000;

/**
 * Publish pictures of `take` through `camera` until the returned function is called.
 *
 * A picture is taken only when it can be sent now: somebody watches (`demand`), the connection has room (`camera.room`),
 * and the last picture is as long ago as the wanted rate says. So none waits, and each is as young as the network allows.
 */
export function capture(camera: Camera, take: TakePicture, options: CaptureOptions = {}): () => void {
  const { maxFps = 5, onError } = options;
  let fps = maxFps; // until the server says what is wanted
  let taking = false;
  let stopped = false;
  let notBefore = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function plan(): void {
    clearTimeout(timer);
    if (stopped || taking || fps <= 0 || !camera.room) return; // `demand` or `room` comes back to here
    timer = setTimeout(() => void shoot(), Math.max(0, notBefore - Date.now()));
  }

  async function shoot(): Promise<void> {
    taking = true;
    const timestamp = Date.now();
    notBefore = timestamp + 1000 / fps;
    try {
      const picture = await take();
      if (!stopped && camera.room) camera.send(picture, { timestamp });
    } catch (error) {
      notBefore = timestamp + RETRY_MS;
      if (!stopped) onError?.(error);
    }
    taking = false;
    plan();
  }

  const off = [
    camera.on("demand", (demand) => {
      fps = Math.min(demand.fps, maxFps);
      notBefore = Math.min(notBefore, Date.now() + (fps > 0 ? 1000 / fps : 0));
      plan();
    }),
    camera.on("room", plan),
    camera.on("state", plan),
  ];
  plan();
  return () => {
    stopped = true;
    clearTimeout(timer);
    for (const stop of off) stop();
  };
}

/** Takes pictures while somebody watches and the network keeps up. */

import type { Camera } from "@watchout/client";

/** Takes one picture: its JPEG as base64, as React Native hands pictures over. */
export type TakePicture = () => Promise<string>;

/** After a picture that could not be taken, in ms. */
const RETRY_MS = 1000;

/**
 * Publish what `take` gives, until `signal` is aborted or the camera is closed.
 *
 * A picture is taken when it can be sent at once: somebody watches, the window has room, and the demanded rate permits
 * it. So none waits, the phone encodes nothing for nobody, and each picture is as young as the network allows.
 *
 * @param onError - A picture could not be taken; the next one is tried after a second.
 */
export async function capture(
  camera: Camera,
  take: TakePicture,
  signal: AbortSignal,
  onError: (error: unknown) => void,
): Promise<void> {
  while (await camera.ready(signal)) {
    const timestamp = Date.now();
    try {
      camera.send(await take(), { timestamp });
    } catch (error) {
      if (signal.aborted) return;
      onError(error);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

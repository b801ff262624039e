/** Opens the device's camera; when that fails, the error says what the user can do. */

export type MediaFault =
  /** The page came over plain HTTP from another machine, where browsers do not permit a camera. */
  | "insecure-context"
  /** The user or a policy denied the permission. */
  | "permission-denied"
  | "no-camera"
  /** Another program uses the camera, or the hardware failed. */
  | "camera-busy"
  /** No camera satisfies the constraints. */
  | "impossible-wish"
  | "unsupported";

const HINTS: Readonly<Record<MediaFault, string>> = {
  "insecure-context":
    "browsers open the camera only on pages from https:// or from localhost; set TLS_CERT and TLS_KEY of the gateway, or put a proxy with a certificate before it",
  "permission-denied": "the camera is not allowed for this page; allow it in the browser's settings of this site",
  "no-camera": "this device has no camera",
  "camera-busy": "the camera is in use by another program, or does not answer",
  "impossible-wish": "no camera of this device gives what was asked for",
  unsupported: "this browser cannot open a camera",
};

const FAULTS: Readonly<Record<string, MediaFault>> = {
  NotAllowedError: "permission-denied",
  SecurityError: "permission-denied",
  NotFoundError: "no-camera",
  NotReadableError: "camera-busy",
  AbortError: "camera-busy",
  OverconstrainedError: "impossible-wish",
};

/** The camera cannot be opened: `fault` for programs, the message for people. */
export class MediaError extends Error {
  readonly fault: MediaFault;

  constructor(
    fault: MediaFault,
    cause?: unknown,
  ) {
    super(HINTS[fault], { cause });
    this.fault = fault;
    this.name = "MediaError";
  }
}

/**
 * The video of the device's camera.
 *
 * @param constraints - as of `getUserMedia`; by default the camera that looks away from the user, without sound
 * @throws MediaError
 */
export async function openMedia(constraints: MediaStreamConstraints = {}): Promise<MediaStream> {
  if (!globalThis.isSecureContext) throw new MediaError("insecure-context");
  const { mediaDevices } = navigator as { mediaDevices?: MediaDevices };
  if (mediaDevices?.getUserMedia === undefined) throw new MediaError("unsupported");
  try {
    return await mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false, ...constraints });
  } catch (error) {
    const name = error instanceof Error || error instanceof DOMException ? error.name : "";
    throw new MediaError(FAULTS[name] ?? "unsupported", error);
  }
}

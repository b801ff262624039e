/** Errors of the client, and the reaction to each close code. */

/** Codes that the client sets itself, beside the server's (docs/protocol.md, "Errors"). */
export type ClientErrorCode =
  | "TOKEN_UNAVAILABLE" // the token callback failed
  | "SIGNED_OUT" // the token callback gave no token
  | "TICKET_USED" // a ticket is valid once, and there is no other to reconnect with
  | `CLOSED_${number}` // the socket ended with this close code, and without a code of the server
  | "CONNECTION_LOST" // the socket ended without a code, or could not be opened
  | "NETWORK_SILENT" // nothing arrived within the silence limit
  | "CLOSED"; // this object was closed

/** The error in events and rejected promises. */
export class WatchoutError extends Error {
  override readonly name = "WatchoutError";
  /** The server's error code, or one of `ClientErrorCode`. */
  readonly code: string;
  /** The stream that the error is about, if it is about one. */
  readonly streamId: string | undefined;
  /** Whether the client tries again by itself. */
  readonly retryable: boolean;
  /** The WebSocket close code, if the socket ended. */
  readonly closeCode: number | undefined;

  constructor(
    code: string,
    message: string,
    more: { streamId?: string | undefined; retryable?: boolean; closeCode?: number | undefined; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.streamId = more.streamId;
    this.retryable = more.retryable ?? false;
    this.closeCode = more.closeCode;
  }
}

/** Return an error message of the server as an error; `streamId` is used if the message names no stream. */
export function errorOf(
  message: { readonly code: string; readonly message: string; readonly streamId?: string | undefined },
  streamId?: string,
): WatchoutError {
  const { code } = message;
  const retryable = code === "ROUTING_ERROR" || code === "RATE_LIMITED";
  return new WatchoutError(code, message.message, { streamId: message.streamId ?? streamId, retryable });
}

/**
 * What to do after a socket ended.
 *
 * - `reconnect`: connect again with the same token, after a back-off.
 * - `renew`: the session is not valid: ask for a new token, once.
 * - `stop`: do not connect again with the same token.
 */
export type CloseMeaning = "reconnect" | "renew" | "stop";

/** Return what a close code means; `errorCode` is that of the last error which the server sent before it. */
export function meaningOfClose(code: number, errorCode?: string): CloseMeaning {
  if (code === 4500) return "renew";
  if (code === 1008) return errorCode === "AUTH_FAILED" || errorCode === "AUTH_TIMEOUT" ? "renew" : "stop";
  return code >= 4500 && code <= 4999 ? "stop" : "reconnect";
}

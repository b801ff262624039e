/** Messages of the edge protocol. Generated from sdk/schema/messages.json by `npm run generate`. */

/** A message of a client. */
export type ClientMessage = AuthMessage | RegisterMessage | PublishFrameMessage | SubscribeMessage | UnsubscribeMessage | AckMessage | RaiseAlertMessage | AcknowledgeMessage | ClientPingMessage;

/** A message of the server. */
export type ServerMessage = SuccessMessage | ErrorMessage | StatusMessage | FrameMessage | AlertMessage | DemandMessage | ServerAckMessage | AlertAcknowledgedMessage | PongMessage | ServerPingMessage;

/** Id of a stream. */
export type StreamId = string;

/** Id of an alert, unique within its stream. */
export type AlertId = string;

/** Chosen by the client; the answer carries it back. */
export type RequestId = string;

/** Number of a frame within its stream. */
export type FrameId = number;

/** Milliseconds since the epoch. */
export type Time = number;

/** Milliseconds since the epoch; a fraction is dropped. */
export type ClientTime = number;

/** The server sends a ping in every silence of so many seconds. */
export type PingEvery = number;

/** Severities, in rising order. */
export type Severity = "low" | "medium" | "high" | "critical";

/** What is known of a stream's camera. */
export type StreamStatus = "streaming" | "online" | "offline";

/** How frames travel to a viewer. */
export type FrameFormat = "json" | "binary";

/** What a success confirms. */
export type SuccessEvent = "authenticated" | "registered" | "subscribed" | "unsubscribed" | "acknowledged" | "alert-accepted";

/** Codes of errors. Newer servers may send others. */
export type ErrorCode = "AUTH_REQUIRED" | "AUTH_FAILED" | "AUTH_TIMEOUT" | "AUTH_UNAVAILABLE" | "ALREADY_AUTHENTICATED" | "SESSION_ENDED" | "UNAUTHORIZED" | "INVALID_MESSAGE" | "UNKNOWN_MESSAGE_TYPE" | "ROUTING_ERROR" | "STREAM_TAKEN_OVER" | "RATE_LIMITED" | "TOO_MANY_CONNECTIONS" | "SLOW_CONSUMER" | "MESSAGE_TIMEOUT";

/** What a camera says of itself; at most 4 KiB of JSON. */
export type StreamInfo = Readonly<Record<string, unknown>>;

/** Names */
export type Names = readonly string[];

/** Signs the socket in; with `renew`, replaces the session that it lives by. */
export interface AuthMessage {
  readonly type: "auth";
  readonly token: string;
  readonly renew?: boolean;
  readonly pingEvery?: PingEvery;
  readonly requestId?: RequestId;
}

/** Publishes a stream. */
export interface RegisterMessage {
  readonly type: "register";
  readonly streamId?: StreamId;
  readonly clientType?: string;
  /** "video-frame", "alert". */
  readonly produces?: Names;
  /** "alert", "demand". */
  readonly consumes?: Names;
  /** The server acknowledges frames; at most so many are under way. */
  readonly window?: number;
  readonly info?: StreamInfo;
  readonly pingEvery?: PingEvery;
  readonly requestId?: RequestId;
}

/** A camera's frame as JSON. Fields that are not named here reach JSON viewers unchanged. */
export interface PublishFrameMessage {
  readonly type: "video-frame";
  readonly streamId?: StreamId;
  /** The encoded picture in base64. */
  readonly data: string;
  readonly timestamp?: ClientTime;
  readonly requestId?: RequestId;
}

/** Asks for frames or alerts of a stream. */
export interface SubscribeMessage {
  readonly type: "subscribe";
  readonly streamId: StreamId;
  readonly clientType?: string;
  /** "video-frame", "alert". */
  readonly consumes?: Names;
  readonly format?: FrameFormat;
  readonly maxFps?: number;
  readonly lastFrame?: boolean;
  readonly alertsSince?: ClientTime;
  readonly window?: number;
  readonly pingEvery?: PingEvery;
  readonly requestId?: RequestId;
}

/** Ends the subscription to a stream. */
export interface UnsubscribeMessage {
  readonly type: "unsubscribe";
  readonly streamId: StreamId;
  readonly requestId?: RequestId;
}

/** A viewer has received all frames of a stream up to `frameId`. */
export interface AckMessage {
  readonly type: "ack";
  readonly streamId: StreamId;
  readonly frameId: FrameId;
  readonly requestId?: RequestId;
}

/** A camera raises an alert about its own stream. Fields that are not named here are passed on. */
export interface RaiseAlertMessage {
  readonly type: "alert";
  readonly streamId?: StreamId;
  readonly severity: Severity;
  readonly message: string;
  readonly metadata?: Readonly<Record<string, unknown>>;
  readonly timestamp?: ClientTime;
  readonly frameId?: FrameId;
  readonly id?: AlertId;
  readonly requestId?: RequestId;
}

/** Acknowledges an alert, for everybody. */
export interface AcknowledgeMessage {
  readonly type: "acknowledge";
  readonly streamId: StreamId;
  readonly alertId: AlertId;
  readonly note?: string;
  readonly requestId?: RequestId;
}

/** Asks for a pong. */
export interface ClientPingMessage {
  readonly type: "ping";
  readonly requestId?: RequestId;
}

/** A message of the client was carried out. */
export interface SuccessMessage {
  readonly type: "success";
  /** For people. */
  readonly message: string;
  readonly event: SuccessEvent;
  readonly streamId?: StreamId;
  /** `acknowledged`, `alert-accepted`: the alert. */
  readonly alertId?: AlertId;
  /** Answer to `alertsSince`: no alert between is missing. */
  readonly recovered?: boolean;
  /** `recovered` false: the oldest alert that is kept. */
  readonly from?: Time;
  readonly requestId?: RequestId;
  readonly timestamp: Time;
}

/** A message of the client was refused, or something ended. */
export interface ErrorMessage {
  readonly type: "error";
  readonly code: ErrorCode;
  /** What happened, what was expected. */
  readonly message: string;
  readonly streamId?: StreamId;
  readonly requestId?: RequestId;
  readonly timestamp: Time;
}

/** The status of a stream. */
export interface StatusMessage {
  readonly type: "status";
  readonly streamId: StreamId;
  readonly status: StreamStatus;
  /** In the first status, and when it is new; null: there is none any more. */
  readonly info?: StreamInfo | null;
  readonly timestamp: Time;
}

/** A frame for a JSON viewer, with the fields that the camera added. */
export interface FrameMessage {
  readonly type: "video-frame";
  readonly streamId: StreamId;
  readonly frameId: FrameId;
  /** The encoded picture in base64, as the camera sent it. */
  readonly data: string;
  readonly timestamp: Time;
}

/** An alert about a stream, with the fields that its sender added. */
export interface AlertMessage {
  readonly type: "alert";
  readonly id: AlertId;
  readonly streamId: StreamId;
  readonly severity: Severity;
  readonly message: string;
  readonly metadata?: Readonly<Record<string, unknown>>;
  readonly frameId?: FrameId;
  readonly acknowledged?: Acknowledgement;
  readonly timestamp: Time;
}

/** Who acknowledged an alert, and when. */
export interface Acknowledgement {
  readonly userId: string;
  readonly note?: string;
  readonly timestamp: Time;
}

/** What is worth sending, for a camera that consumes "demand"; `fps` 0: nobody watches. */
export interface DemandMessage {
  readonly type: "demand";
  readonly streamId: StreamId;
  readonly viewers: number;
  readonly fps: number;
  readonly timestamp: Time;
}

/** All frames of the camera up to this one are taken in; `timestamp` is that of the camera's frame. */
export interface ServerAckMessage {
  readonly type: "ack";
  readonly streamId: StreamId;
  readonly frameId: FrameId;
  /** Frames that were acknowledged on this socket so far. */
  readonly received?: number;
  readonly timestamp: Time;
}

/** Somebody acknowledged an alert. */
export interface AlertAcknowledgedMessage {
  readonly type: "alert-acknowledged";
  readonly streamId: StreamId;
  readonly alertId: AlertId;
  readonly userId: string;
  readonly note?: string;
  readonly timestamp: Time;
}

/** Answers a ping. */
export interface PongMessage {
  readonly type: "pong";
  readonly requestId?: RequestId;
  readonly timestamp: Time;
}

/** Shows that the connection lives: the client asked for it with `pingEvery`. It needs no answer. */
export interface ServerPingMessage {
  readonly type: "ping";
  readonly timestamp: Time;
}

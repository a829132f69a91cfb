/** Payloads are what JSON can say; a custom protocol may know more. */
export type Payload = unknown;

/** The `code` of every `WseError` of the library; an application has codes of its own. */
export declare const ErrorCode: {
  /** `challenge` was given something that cannot be called. */
  readonly INVALID_CRA_HANDLER: "wse.client.invalid-cra-handler";
  /** A call was not answered in time. */
  readonly RP_TIMEOUT: "wse.client.rp.timeout";
  /** The connection, or the session that outlives it, ended while a call waited. */
  readonly RP_DISCONNECT: "wse.client.rp.disconnect";
  /** `connect` on a client that is connected or connecting. */
  readonly CLIENT_ALREADY_CONNECTED: "wse.client.already-connected";
  /** The WebSocket could not be opened, or closed before the welcome. */
  readonly WS_CLIENT_ERROR: "wse.client.ws-error";
  /** `send` or `call` on a client that is not ready. */
  readonly CONNECTION_NOT_READY: "wse.client.not-ready";
  /** `send` or `call` while the connection is lost, and no more can be kept. */
  readonly OUTBOX_FULL: "wse.client.outbox-full";
  /** The server asked a challenge and there is no solver. */
  readonly SOLVER_MISSING: "wse.client.solver-missing";
  /** The server refused this identity. */
  readonly NOT_AUTHORIZED: "wse.not-authorized";
  /** A procedure threw; `details.id` is in the log of the side that ran it. */
  readonly RP_EXECUTION_FAILED: "wse.server.rp.failed";
  /** The other side has no such procedure. */
  readonly RP_NOT_REGISTERED: "wse.server.rp.not-registered";
  /** Two procedures of one name. */
  readonly RP_ALREADY_REGISTERED: "wse.server.rp.already-registered";
  /** A readable message that may not be said now, or has no type. */
  readonly PROTOCOL_VIOLATION: "wse.server.protocol-violation";
  /** A message that could not be read, or whose handler threw. */
  readonly MESSAGE_PROCESSING_ERROR: "wse.server.msg-processing-error";
};

export declare const Status: {
  /** Never connected. */
  readonly IDLE: "IDLE";
  /** The first attempt. */
  readonly CONNECTING: "CONNECTING";
  /** Welcomed: `send` and `call` work. */
  readonly READY: "READY";
  /** The connection ended. */
  readonly OFFLINE: "OFFLINE";
  /** Waiting to try again, or trying; `send` and `call` work as long as the session is not lost. */
  readonly RE_CONNECTING: "RE_CONNECTING";
};
export type Status = (typeof Status)[keyof typeof Status];

/** What went wrong. */
export declare class WseError extends Error {
  constructor(code: string, details?: unknown, message?: string, options?: ErrorOptions);
  /** For programs. */
  readonly code: string;
  /** What the other side told; `{}` if nothing. */
  readonly details: any;
}

/** How messages are packed; the server must speak it too. */
export interface Protocol {
  /** The WebSocket subprotocol. With one that begins with `wse.5.` sessions outlive connections. */
  readonly name: string;
  /** The names of the library's own messages; those of `wseJSON` unless said. */
  readonly types?: Partial<Types>;
  /** `ms` is how long a caller waits, in milliseconds; protocol 5 alone has it. */
  pack(type: string, payload: Payload, stamp: unknown, ms?: number): string | ArrayBuffer | Uint8Array<ArrayBuffer>;
  unpack(data: string | ArrayBuffer): readonly [type: unknown, payload?: Payload, stamp?: unknown, ms?: unknown, ...unknown[]];
}

export interface Types {
  readonly hi: string;
  readonly challenge: string;
  readonly welcome: string;
  readonly call: string;
  readonly response: string;
  readonly responseError: string;
}

/** `[type, payload, stamp]` as JSON: what every server of wse speaks. */
export declare const wseJSON: Protocol & { readonly types: Types };

/** When to come back: a random time up to `first * factor ** attempts`, at most `cap`. In seconds. */
export interface Backoff {
  first?: number;
  factor?: number;
  cap?: number;
}

export interface Options {
  /** Seconds that `connect` takes at most, and each call, unless it says otherwise; 30. May be `Infinity`. */
  timeout?: number;
  /** Come back when the connection is lost, until refused or closed; false. */
  reconnect?: boolean;
  backoff?: Backoff;
  /** What this device of the user is called; one that lasts as long as the tab unless said. */
  device?: string;
  /** Another than protocol 5 and, with servers that do not speak that, the classic one. */
  protocol?: Protocol;
  /** The class to connect with, where there is none of the platform's. */
  WebSocket?: new (url: string, protocols: string[]) => any;
}

export interface SendOptions {
  /** False: it may be lost with the connection, and is skipped while there is none; true. */
  keep?: boolean;
}

export interface CallOptions {
  /** Seconds to wait for the answer; may be `Infinity`. */
  timeout?: number;
  /** Wait no longer when it aborts, and tell the server. */
  signal?: AbortSignal;
}

/** Who waits for a procedure of ours. */
export interface Caller {
  /** Aborts when the caller waits no longer. */
  readonly signal: AbortSignal;
  /** Seconds that the caller still waits, if it said so. */
  timeLeft(): number | undefined;
}

export type Handler<Args extends unknown[]> = (...args: Args) => unknown;

/** One kind of event: call it with a handler to listen. What the handler returns may be a promise. */
export interface Signal<Args extends unknown[]> {
  <H extends Handler<Args>>(handler: H): H;
  /** For the next such event only. */
  once<H extends Handler<Args>>(handler: H): H;
  /** Listen no longer. */
  off(handler: Handler<Args>): void;
}

/** Message types and their handlers. Types that begin with `~wse:` are reserved. */
export interface Channel {
  on<P = any>(type: string, handler: (payload: P) => unknown): (payload: P) => unknown;
  /** For the next message of this type only. */
  once<P = any>(type: string, handler: (payload: P) => unknown): (payload: P) => unknown;
  /** Remove a handler, or all of a type. */
  off(type: string, handler?: (payload: any) => unknown): void;
}

/** One device of a user: it connects, talks, and comes back. */
export declare class WseClient {
  constructor(url: string | URL, options?: Options);

  /** `ws://` or `wss://`; in a browser also a path of the page's own server. */
  url: string;
  reconnect: boolean;
  readonly status: Status;
  /** What this device of the user is called, as soon as that is known. */
  readonly device: string | undefined;
  /** The messages that the server sends. */
  readonly channel: Channel;
  readonly when: {
    /** The WebSocket is open; the server does not know who this is yet. */
    readonly connected: Signal<[]>;
    /** Welcomed. A handler added later is told the last one. */
    readonly ready: Signal<[welcome: any]>;
    /** The connection is lost, its session is not: it comes back, and nothing is missing then. */
    readonly suspended: Signal<[code: number, reason: string]>;
    /** It is back after `suspended`, and what was missing has been sent. No `ready` then. */
    readonly resumed: Signal<[welcome: any]>;
    /** The session is lost: so many messages of ours have perhaps not arrived, and what the server sent may be missing. */
    readonly lost: Signal<[count: number]>;
    /** A WebSocket that was open has ended, and its session with it. */
    readonly closed: Signal<[code: number, reason: string]>;
    /** `status` changed. A handler added later is told the last one. */
    readonly updated: Signal<[status: Status]>;
    /** A message that nobody handles. */
    readonly ignored: Signal<[type: string, payload: any]>;
    /**
     * A handler threw (`error.cause`), the server sent what it may not, or coming back failed. The first two are shown
     * on the console where nobody listens.
     */
    readonly error: Signal<[error: WseError]>;
  };

  /**
   * Open the connection and prove who this is; resolves to the payload of the welcome.
   *
   * @param identity What the server's `identify` is given. A function, also an async one, is asked
   *   on every attempt, so that a token is fresh when the client comes back.
   * @param meta What the device says about itself.
   * @throws {WseError} `NOT_AUTHORIZED`, `SOLVER_MISSING`, `WS_CLIENT_ERROR`,
   *   `CLIENT_ALREADY_CONNECTED`; and what the identity function or the solver throws.
   */
  connect<W = any>(identity?: unknown, meta?: unknown): Promise<W>;

  /** Leave for another server: close with 4000 `jump` and connect there as the same user. */
  jump<W = any>(url: string): Promise<W>;

  /**
   * Close with code 1000, or give up coming back.
   *
   * @throws {RangeError} A reason of more than 123 bytes.
   */
  close(reason?: string): void;

  /** Answer the server's challenges with this function, plain or async. */
  challenge(solver: (quest: any) => unknown): void;

  /**
   * Send a message; never waits. While the connection is lost it is kept for the return.
   *
   * @throws {WseError} `CONNECTION_NOT_READY`, `OUTBOX_FULL`.
   */
  send(type: string, payload?: Payload, options?: SendOptions): void;

  /**
   * Call a procedure of the server.
   *
   * @throws {WseError} `CONNECTION_NOT_READY`, `OUTBOX_FULL`, `RP_TIMEOUT`, `RP_DISCONNECT`, `RP_NOT_REGISTERED`,
   *   `RP_EXECUTION_FAILED`, or what the procedure raised. And the reason of `signal`.
   */
  call<R = any>(name: string, payload?: Payload, options?: CallOptions): Promise<R>;

  /** Offer a procedure, plain or async; a `WseError` that it throws reaches the caller. */
  register<F extends (payload: any, caller: Caller) => unknown>(name: string, procedure: F): F;
  unregister(name: string): void;
}

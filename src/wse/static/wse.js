// A client of wse for browsers, and for Node with a WebSocket: one device of a user.
// One ES module, without dependencies; its types are in wse.d.ts beside it.

export const ErrorCode = Object.freeze({
  INVALID_CRA_HANDLER: "wse.client.invalid-cra-handler",
  RP_TIMEOUT: "wse.client.rp.timeout",
  RP_DISCONNECT: "wse.client.rp.disconnect",
  CLIENT_ALREADY_CONNECTED: "wse.client.already-connected",
  WS_CLIENT_ERROR: "wse.client.ws-error",
  CONNECTION_NOT_READY: "wse.client.not-ready",
  OUTBOX_FULL: "wse.client.outbox-full",
  SOLVER_MISSING: "wse.client.solver-missing",
  NOT_AUTHORIZED: "wse.not-authorized",
  RP_EXECUTION_FAILED: "wse.server.rp.failed",
  RP_NOT_REGISTERED: "wse.server.rp.not-registered",
  RP_ALREADY_REGISTERED: "wse.server.rp.already-registered",
  PROTOCOL_VIOLATION: "wse.server.protocol-violation",
  MESSAGE_PROCESSING_ERROR: "wse.server.msg-processing-error",
});

export const Status = Object.freeze({
  IDLE: "IDLE",
  CONNECTING: "CONNECTING",
  READY: "READY",
  OFFLINE: "OFFLINE",
  RE_CONNECTING: "RE_CONNECTING",
});

const NOT_AUTHORIZED = "wse.not-authorized";
const PROTOCOL_ERROR = "wse.protocol-error";
const BY_CLIENT = "wse.by-client";
const HEARTBEAT_LOST = "wse.heartbeat-lost";
const RESERVED = "~wse:";
const ACK = "~wse:ack";
const PING = "~wse:ping";
const PONG = "~wse:pong";
const BYE = "~wse:bye";
const CANCEL = "~wse:cancel";
const UNCOUNTED = new Set([ACK, PING, PONG, BYE]);
const MOST_KEPT = 1024; // messages
const MOST_KEPT_BYTES = 2 ** 20;
const LATEST_ACK = 0.2; // seconds, like what follows
const PATIENCE = 10; // with a server that is asked for a sign of life
const LATE = 2; // from then on a timer slept
const UNLOADING = 0.3; // what a page that is loaded again takes to let go
const LONGEST_TIMER = 2 ** 31; // milliseconds, from which on the platform's fire at once
const JUMP = 4000;
const SUSPENDS = new Set([1005, 1006, 1011, 1012, 1013, 1014]);
const COMES_BACK = new Set([...SUSPENDS, JUMP]);

/** What went wrong: `code` is for programs, `details` are what the other side told. */
export class WseError extends Error {
  constructor(code, details = {}, message = "", options) {
    super(message || code, options);
    this.name = "WseError";
    this.code = code;
    this.details = details;
  }
}

/** `[type, payload, stamp]` as JSON: what every server of wse speaks. */
export const wseJSON = {
  name: "wse-default-json",
  types: {
    hi: "~wse:hi",
    challenge: "~wse:challenge",
    welcome: "~wse:welcome",
    call: "~wse:call",
    response: "~wse:response",
    responseError: "~wse:response-err",
  },
  pack: (type, payload, stamp) => JSON.stringify([type, payload ?? null, stamp]),
  unpack: (data) =>
    JSON.parse(typeof data === "string" ? data : new TextDecoder("utf-8", { fatal: true }).decode(data)),
};

/** The same for sessions that outlive a connection, with the time that a caller waits; what is absent is left out. */
const wse5JSON = {
  ...wseJSON,
  name: "wse.5.json",
  pack: (type, payload, stamp, ms) => {
    const message = [type, payload ?? null, stamp, ms];
    while (message.at(-1) == null) message.pop();
    return JSON.stringify(message);
  },
};

const outlives = (protocol) => protocol.name.startsWith("wse.5.");

/** Tells handlers one after the other: an event that one of them causes is told after it. */
class Emitter {
  #waiting = [];
  #busy = false;

  constructor(failed) {
    this.failed = failed;
  }

  tell(name, handlers, args) {
    this.#waiting.push(...handlers.map((handler) => [name, handler, args]));
    this.together(() => {});
  }

  /** What is emitted meanwhile is told at the end. */
  together(emit) {
    if (this.#busy) return emit();
    this.#busy = true;
    try {
      emit();
    } finally {
      for (let next; (next = this.#waiting.shift()); ) this.#run(...next);
      this.#busy = false;
    }
  }

  #run(name, handler, args) {
    const failed = (error) => this.failed(name, error);
    try {
      Promise.resolve(handler(...args)).catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}

/** A function that takes handlers: `when.ready(handler)`, `when.ready.once`, `when.ready.off`. */
function signal(emitter, name, remembered = false) {
  let handlers = [];
  let last;
  const add = (handler, once) => {
    if (last) emitter.tell(name, [handler], last);
    if (!(last && once)) handlers = [...handlers, { handler, once }];
    return handler;
  };
  const on = (handler) => add(handler, false);
  on.once = (handler) => add(handler, true);
  on.off = (handler) => {
    handlers = handlers.filter((one) => one.handler !== handler);
  };
  on.isHeard = () => handlers.length > 0;
  on.emit = (...args) => {
    if (remembered) last = args;
    const told = handlers;
    handlers = handlers.filter((one) => !one.once);
    emitter.tell(name, told.map((one) => one.handler), args);
  };
  return on;
}

/** Message types and their handlers. */
class Channel {
  #handlers = new Map();

  on(type, handler) {
    return this.#add(type, handler, false);
  }

  once(type, handler) {
    return this.#add(type, handler, true);
  }

  off(type, handler) {
    this.#keep(type, handler ? this.#of(type).filter((one) => one.handler !== handler) : []);
  }

  /** The handlers for one message that has come. */
  take(type) {
    const handlers = this.#of(type);
    if (handlers.some((one) => one.once)) this.#keep(type, handlers.filter((one) => !one.once));
    return handlers.map((one) => one.handler);
  }

  #of(type) {
    return this.#handlers.get(type) ?? [];
  }

  #keep(type, handlers) {
    if (handlers.length) this.#handlers.set(type, handlers);
    else this.#handlers.delete(type);
  }

  #add(type, handler, once) {
    this.#handlers.set(ours(type), [...this.#of(type), { handler, once }]);
    return handler;
  }
}

function ours(type) {
  if (typeof type !== "string") throw new TypeError("a message type is a string");
  if (type.startsWith(RESERVED)) throw new RangeError(`types that begin with ${RESERVED} are reserved`);
  return type;
}

const encoder = new TextEncoder();
const sizeOf = (data) => (typeof data === "string" ? encoder.encode(data).length : data.byteLength);

function after(seconds, act) {
  return seconds * 1000 < LONGEST_TIMER ? setTimeout(act, seconds * 1000) : undefined;
}

/** Act whenever the page is online or visible again, until what is given back is called. */
function onReturn(act) {
  const page = globalThis.document;
  const seen = () => page.visibilityState === "visible" && act();
  globalThis.addEventListener?.("online", act);
  page?.addEventListener("visibilitychange", seen);
  return () => {
    globalThis.removeEventListener?.("online", act);
    page?.removeEventListener("visibilitychange", seen);
  };
}

/** What both sides count while connections come and go, and what is kept to be sent again. */
class Session {
  answering = new Map(); // callers by their stamps
  received = 0; // messages that have come
  #unsaid = 0; // those of them that we have not acknowledged
  #unsaidBytes = 0;
  #sent = 0;
  #acked = 0;
  #fallen = 0; // the last that fell out
  #kept = []; // without a number: not sent yet
  #bytes = 0;

  constructor(protocol) {
    this.protocol = protocol;
  }

  /** Take what a welcome says; whether it can be. */
  agree(told) {
    const before = this.told ?? told;
    this.told = told;
    return typeof told?.session === "string" && told.session === before.session && this.#canBe(told.received);
  }

  /** How many messages the other side has perhaps not got. */
  get unconfirmed() {
    return this.#sent - this.#acked + this.#kept.filter(({ number }) => !number).length;
  }

  /** Count what goes out now. */
  write(data, keep, stamp) {
    this.#sent += 1;
    if (!keep) return;
    this.#keep({ data, size: sizeOf(data), stamp, number: this.#sent });
    while (this.#kept.length > MOST_KEPT || this.#bytes > MOST_KEPT_BYTES) this.#fallen = this.#shift();
  }

  get isFull() {
    return this.#kept.length >= MOST_KEPT || this.#bytes >= MOST_KEPT_BYTES;
  }

  /** Keep what goes out later. */
  wait(data, stamp) {
    this.#keep({ data, size: sizeOf(data), stamp });
  }

  /** Send a call not again; whether it may have been sent. */
  giveUp(stamp) {
    const place = this.#kept.findIndex((one) => one.stamp === stamp);
    if (place < 0) return true;
    const [{ size, number }] = this.#kept.splice(place, 1);
    this.#bytes -= size;
    return number !== undefined;
  }

  /** The other side has so many; whether that can be. */
  acknowledged(count) {
    if (!this.#canBe(count)) return false;
    this.#acked = count;
    while (this.#kept[0]?.number <= count) this.#shift();
    return true;
  }

  /** Whether everything is still there that the other side lacks. */
  get isWhole() {
    return this.told.received >= this.#fallen;
  }

  /** What the other side lacks: numbers are what it counts, and it counts from what it has. */
  again() {
    this.acknowledged(this.told.received);
    this.#sent = this.#acked;
    for (const one of this.#kept) one.number = this.#sent += 1;
    this.#unsaid = this.#unsaidBytes = 0;
    return this.#kept.map(({ data }) => data);
  }

  /** Count what came; whether so much came that it is time to say so. */
  take(size) {
    this.received += 1;
    this.#unsaid += 1;
    this.#unsaidBytes += size;
    return this.#unsaid >= this.told.ring >> 2 || this.#unsaidBytes >= this.told.ring_bytes / 4;
  }

  acknowledge() {
    this.#unsaid = this.#unsaidBytes = 0;
    return this.received;
  }

  #canBe(count) {
    return Number.isInteger(count) && count >= this.#acked && count <= this.#sent;
  }

  #keep(one) {
    this.#kept.push(one);
    this.#bytes += one.size;
  }

  #shift() {
    const { size, number } = this.#kept.shift();
    this.#bytes -= size;
    return number;
  }
}

/** Asks for a sign of life after so many seconds without one, and tells when none comes. */
class Pulse {
  #timer;
  #unlisten = onReturn(() => this.#ask());

  constructor(seconds, say, lost) {
    Object.assign(this, { seconds, say, lost });
    this.heard();
  }

  heard() {
    this.#next(this.seconds, () => this.#ask());
  }

  stop() {
    clearTimeout(this.#timer);
    this.#unlisten();
  }

  /** A timer that is late was asleep, as the network may have been: the first such is not believed. */
  #ask(doubt = true) {
    const due = Date.now() + PATIENCE * 1000;
    this.#next(PATIENCE, () => {
      if (doubt && Date.now() - due > LATE * 1000) this.#ask(false);
      else this.lost();
    });
    this.say();
  }

  #next(seconds, act) {
    clearTimeout(this.#timer);
    this.#timer = after(seconds, act);
  }
}

/** Where the name of a device outlives the page, if it may. */
function tab() {
  try {
    return globalThis.navigator?.locks && globalThis.sessionStorage;
  } catch {
    return undefined; // private, or a frame of a stranger
  }
}

/** One device of a tab. A tab that is duplicated has a copy of its names: a lock tells which tab was first. */
class Place {
  static #taken = new Set();
  #key;
  #left;

  constructor() {
    let number = 0;
    while (Place.#taken.has(number)) number += 1;
    Place.#taken.add(number);
    this.#key = `wse.device.${number}`;
    this.#left = new Promise((leave) => {
      this.leave = () => {
        Place.#taken.delete(number);
        leave();
      };
    });
    this.device = this.#find();
  }

  keep(device) {
    this.device = device;
    this.#lock(device);
    try {
      tab()?.setItem(this.#key, device);
    } catch {} // no room: then it lives as long as the page
  }

  async #find() {
    const device = tab().getItem(this.#key);
    return device && (await this.#lock(device)) ? device : undefined;
  }

  #lock(device) {
    const late = new AbortController();
    after(UNLOADING, () => late.abort());
    return new Promise((locked) => {
      const hold = () => {
        locked(true);
        return this.#left;
      };
      navigator.locks.request(`wse:${device}`, { signal: late.signal }, hold).catch(() => locked(false));
    });
  }
}

/** One device of a user: it connects, talks, and comes back. */
export class WseClient {
  #emitter;
  #protocols;
  #protocol; // of the WebSocket
  #types;
  #timeout;
  #backoff;
  #WebSocket;
  #solver;
  #procedures = new Map();
  #identity;
  #meta;
  #socket; // open or opening
  #held = []; // what a server says before its welcome
  #calls = new Map();
  #count = 0;
  #attempt; // the promise's two ends, until the welcome
  #connecting; // those of `connect`
  #attempts = 0;
  #since = 0;
  #retry; // try again now, while it waits to
  #due; // seconds until the next attempt, where the server named them
  #session;
  #suspended; // how its connection ended, which nobody was told as an end
  #window; // the timers of the session
  #acking;
  #pulse;
  #named; // by the application
  #place;

  constructor(url, options = {}) {
    this.url = String(url);
    this.reconnect = options.reconnect ?? false;
    this.status = Status.IDLE;
    this.channel = new Channel();
    this.#timeout = options.timeout ?? 30;
    this.#backoff = { first: 0.5, factor: 2, cap: 30, ...options.backoff };
    this.#protocols = options.protocol ? [options.protocol] : [wse5JSON, wseJSON];
    this.#types = { ...wseJSON.types, ...options.protocol?.types };
    this.device = options.device;
    this.#named = options.device !== undefined;
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    const emitter = (this.#emitter = new Emitter((event, cause) => {
      if (event === "error") console.error(cause);
      else this.#report(ErrorCode.MESSAGE_PROCESSING_ERROR, { event }, cause);
    }));
    this.when = {
      connected: signal(emitter, "connected"),
      ready: signal(emitter, "ready", true),
      suspended: signal(emitter, "suspended"),
      resumed: signal(emitter, "resumed"),
      lost: signal(emitter, "lost"),
      closed: signal(emitter, "closed"),
      updated: signal(emitter, "updated", true),
      ignored: signal(emitter, "ignored"),
      error: signal(emitter, "error"),
    };
  }

  // -- connecting

  async connect(identity = null, meta = {}) {
    if (this.status !== Status.IDLE && this.status !== Status.OFFLINE) {
      throw new WseError(ErrorCode.CLIENT_ALREADY_CONNECTED, {}, `the client is ${this.status}`);
    }
    this.#identity = identity;
    this.#meta = meta;
    return this.#reach(Status.CONNECTING);
  }

  async jump(url) {
    if (this.status === Status.IDLE) throw new WseError(ErrorCode.CONNECTION_NOT_READY);
    this.url = String(url);
    let reaching;
    this.#emitter.together(() => {
      this.#stop(JUMP, "jump");
      reaching = this.#reach(Status.RE_CONNECTING);
    });
    return reaching;
  }

  close(reason = BY_CLIENT) {
    if (sizeOf(reason) > 123) throw new RangeError("a reason has at most 123 bytes");
    this.#stop(1000, reason);
  }

  challenge(solver) {
    if (typeof solver !== "function") throw new WseError(ErrorCode.INVALID_CRA_HANDLER);
    this.#solver = solver;
  }

  // -- talking

  send(type, payload, { keep = true } = {}) {
    this.#ready();
    this.#post(ours(type), payload, null, { keep, bounded: true });
  }

  async call(name, payload, { timeout = this.#timeout, signal } = {}) {
    this.#ready();
    signal?.throwIfAborted();
    ours(name);
    this.#count += 1;
    const stamp = this.#session ? String(this.#count) : `${this.#types.call}:${name}:${this.#count}`;
    const ms = timeout < Infinity ? Math.max(0, Math.ceil(timeout * 1000)) : undefined;
    this.#post(name, payload, stamp, { ms, call: stamp, bounded: true });
    return new Promise((resolve, reject) => {
      const giveUp = (error) => {
        this.#settle(stamp, error, true);
        if (this.#session?.giveUp(stamp)) this.#post(CANCEL, null, stamp);
      };
      const abort = () => giveUp(signal.reason);
      const timer = after(timeout, () => giveUp(new WseError(ErrorCode.RP_TIMEOUT, {}, `calling ${name}`)));
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      signal?.addEventListener("abort", abort);
      this.#calls.set(stamp, { resolve, reject, done });
    });
  }

  register(name, procedure) {
    if (this.#procedures.has(ours(name))) {
      throw new WseError(ErrorCode.RP_ALREADY_REGISTERED, { name });
    }
    this.#procedures.set(name, procedure);
    return procedure;
  }

  unregister(name) {
    this.#procedures.delete(name);
  }

  // -- reaching the server

  #set(status) {
    if (status === this.status) return;
    this.status = status;
    this.when.updated.emit(status);
  }

  /** Connect, and with reconnection keep trying, for the client's timeout. */
  #reach(status) {
    this.#attempts = 0;
    return new Promise((resolve, reject) => {
      const goal = { resolve, reject, failure: new WseError(ErrorCode.WS_CLIENT_ERROR, {}, "no welcome in time") };
      goal.timer = after(this.#timeout, () => this.#giveUp(goal.failure));
      this.#connecting = goal;
      this.#set(status);
      if (this.#connecting === goal) this.#try();
    });
  }

  /** `connect` has failed. */
  #giveUp(error) {
    const goal = this.#connecting;
    this.#stop(1000, BY_CLIENT, error);
    goal?.reject(error);
  }

  async #try() {
    const attempt = (this.#attempt = {});
    this.#due = undefined;
    attempt.timer = after(this.#timeout, () =>
      this.#failed(attempt, new WseError(ErrorCode.WS_CLIENT_ERROR, {}, "no welcome in time"), true),
    );
    try {
      const identity = typeof this.#identity === "function" ? await this.#identity() : this.#identity;
      if (this.#attempt !== attempt) return;
      if (!this.#named && tab()) {
        const device = await (this.#place ??= new Place()).device;
        if (this.#attempt !== attempt) return;
        this.device = device;
      }
      this.#open(attempt, identity);
    } catch (error) {
      this.#failed(attempt, error, !this.#connecting);
    }
  }

  #open(attempt, identity) {
    const socket = this.#dial();
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#held = [];
    const current = (act) => (event) => this.#socket === socket && act(event);
    socket.onopen = current(() => {
      attempt.opened = true;
      this.when.connected.emit();
      if (this.#socket !== socket) return;
      this.#protocol = this.#protocols.find(({ name }) => name === socket.protocol) ?? this.#protocols.at(-1);
      const hi = { identity: identity ?? null, meta: this.#meta };
      const session = this.#session;
      if (outlives(this.#protocol)) {
        if (this.device !== undefined) hi.device = this.device;
        if (session) {
          attempt.resumes = session;
          hi.resume = { session: session.told.session, received: session.received };
        }
      }
      try {
        this.#say(this.#types.hi, hi);
      } catch (error) {
        this.#failed(attempt, error, false);
      }
    });
    socket.onmessage = current(({ data }) => this.#hear(data));
    socket.onclose = current(({ code, reason }) => this.#lost(code, reason));
    socket.onerror = () => {}; // `onclose` follows, and says more; the class of `ws` throws without
  }

  #dial() {
    try {
      return new this.#WebSocket(this.url, this.#protocols.map(({ name }) => name));
    } catch (cause) {
      throw new WseError(ErrorCode.WS_CLIENT_ERROR, {}, cause.message, { cause });
    }
  }

  /** Give an attempt up. */
  #failed(attempt, error, temporary) {
    if (this.#attempt !== attempt) return;
    const end = [1000, BY_CLIENT];
    const goesOn = this.#session && temporary && this.reconnect; // which a code would end at the server
    this.#emitter.together(() => this.#settled(error, temporary, this.#end(goesOn ? [] : end) && end));
  }

  /** An attempt has failed; `temporary` when the next one may not. `end` is that of a WebSocket that was open. */
  #settled(error, temporary, end) {
    if (end && !this.#suspended) this.#offline(end);
    if (temporary && this.reconnect) {
      if (this.#connecting) this.#connecting.failure = error;
      this.#wait(error);
    } else if (this.#connecting) {
      this.#giveUp(error);
    } else {
      this.when.error.emit(error);
      this.#over();
      this.#offline(this.#suspended && (end || this.#suspended));
    }
  }

  /** Try again after a while; at once when the page is online or visible again. */
  #wait(error) {
    const { first, factor, cap } = this.#backoff;
    if (error) {
      this.#attempts += 1;
      if (error instanceof WseError) this.when.error.emit(error);
      else this.#report(ErrorCode.MESSAGE_PROCESSING_ERROR, { event: "connect" }, error);
    } else {
      const stayed = (Date.now() - this.#since) / 1000;
      this.#attempts = stayed > cap ? 0 : this.#attempts + 1;
    }
    if (this.status === Status.OFFLINE) this.#set(Status.RE_CONNECTING);
    const retry = (this.#retry = () => {
      if (this.#retry !== retry) return;
      this.#stopWaiting();
      this.#try();
    });
    const ceiling = Math.min(cap, first * factor ** Math.min(this.#attempts, 64));
    retry.timer = after(this.#due ?? Math.random() * ceiling, () => {
      if (globalThis.navigator?.onLine !== false) retry();
    });
    retry.unlisten = onReturn(retry);
  }

  #stopWaiting() {
    const retry = this.#retry;
    if (!retry) return;
    this.#retry = undefined;
    clearTimeout(retry.timer);
    retry.unlisten();
  }

  // -- leaving

  /** Let go of the connection, or of the attempt, and close it; whether there was a WebSocket that was open. */
  #end(close) {
    const socket = this.#socket;
    const attempt = this.#attempt;
    this.#socket = this.#attempt = undefined;
    if (attempt) clearTimeout(attempt.timer);
    clearTimeout(this.#acking);
    this.#acking = undefined;
    this.#pulse?.stop();
    this.#pulse = undefined;
    if (!socket) return false;
    socket.onopen = socket.onmessage = socket.onclose = null;
    if (close) socket.close(...close);
    return !attempt || attempt.opened;
  }

  /** What waits for the other side waits in vain. */
  #over() {
    const session = this.#session;
    this.#session = undefined;
    clearTimeout(this.#window);
    for (const stamp of [...this.#calls.keys()]) {
      this.#settle(stamp, new WseError(ErrorCode.RP_DISCONNECT), true);
    }
    if (session && this.#suspended) this.when.lost.emit(session.unconfirmed);
  }

  /** End what goes on, for good. */
  #stop(code, reason, error = new WseError(ErrorCode.WS_CLIENT_ERROR, {}, "closed while connecting")) {
    const goal = this.#connecting;
    this.#connecting = undefined;
    this.#stopWaiting();
    this.#place?.leave();
    this.#place = undefined;
    const told = this.#end([code, reason]) || this.#suspended;
    if (goal) {
      clearTimeout(goal.timer);
      goal.reject(error);
    }
    this.#emitter.together(() => {
      this.#over();
      this.#offline(told ? [code, reason] : undefined);
    });
  }

  /** Told when it is so: a handler of `closed` may connect again. */
  #offline(end = this.#suspended) {
    if (this.status === Status.IDLE) return;
    const changes = this.status !== Status.OFFLINE;
    this.status = Status.OFFLINE;
    this.#suspended = undefined;
    this.#emitter.together(() => {
      if (end) this.when.closed.emit(...end);
      if (changes) this.when.updated.emit(Status.OFFLINE);
    });
  }

  /** The WebSocket has closed, or is closed for what came or did not. */
  #lost(code, reason, close) {
    const attempt = this.#attempt;
    const opened = this.#end(close);
    if (attempt) {
      const error =
        reason === NOT_AUTHORIZED
          ? new WseError(ErrorCode.NOT_AUTHORIZED)
          : new WseError(ErrorCode.WS_CLIENT_ERROR, { code, reason }, `closed before the welcome: ${code} ${reason}`);
      this.#emitter.together(() => this.#settled(error, COMES_BACK.has(code), opened && [code, reason]));
      return;
    }
    if (this.reconnect && this.#session?.told.window > 0 && SUSPENDS.has(code)) return this.#suspend(code, reason);
    this.#over();
    if (opened) this.#offline([code, reason]);
    if (this.reconnect && COMES_BACK.has(code) && this.status === Status.OFFLINE) this.#wait();
  }

  /** The connection is lost, its session is not. */
  #suspend(code, reason) {
    this.#suspended = [code, reason];
    this.status = Status.RE_CONNECTING;
    this.#window = after(this.#session.told.window, () => this.#over());
    this.#wait();
    this.#emitter.together(() => {
      this.when.suspended.emit(code, reason);
      this.when.updated.emit(Status.RE_CONNECTING);
    });
  }

  // -- what comes

  #ready() {
    if (this.status !== Status.READY && !this.#session) {
      throw new WseError(ErrorCode.CONNECTION_NOT_READY, {}, `the client is ${this.status}`);
    }
  }

  /** Send what belongs to the connection alone. */
  #say(type, payload, stamp = null) {
    this.#socket.send(this.#protocol.pack(type, payload, stamp));
  }

  /** Send what belongs to the session, as soon as there is a connection. */
  #post(type, payload, stamp, { ms, call, keep = true, bounded } = {}) {
    const session = this.#session;
    if (!session) return this.#say(type, payload, stamp);
    const data = session.protocol.pack(type, payload, stamp, ms);
    if (!this.#suspended) {
      session.write(data, keep, call);
      this.#socket.send(data);
    } else if (keep) {
      if (bounded && session.isFull) throw new WseError(ErrorCode.OUTBOX_FULL);
      session.wait(data, call);
    }
  }

  #report(code, details, cause) {
    const error = new WseError(code, details, "", { cause });
    if (this.when.error.isHeard()) this.when.error.emit(error);
    else console.error(error);
  }

  #violated(code, cause) {
    this.#report(code, {}, cause);
    if (this.#socket) this.#lost(1000, PROTOCOL_ERROR, [1000, PROTOCOL_ERROR]);
  }

  #hear(data) {
    this.#pulse?.heard();
    let message;
    try {
      message = this.#protocol.unpack(data);
      if (!Array.isArray(message)) throw new TypeError("no message");
    } catch (error) {
      return this.#violated(ErrorCode.MESSAGE_PROCESSING_ERROR, error);
    }
    const [type, payload = null, stamp = null, more = null] = message;
    if (typeof type !== "string") return this.#violated(ErrorCode.PROTOCOL_VIOLATION);
    if (this.status === Status.READY && this.#session) {
      if (UNCOUNTED.has(type)) return this.#heed(type, payload);
      this.#counted(sizeOf(data));
      if (type === CANCEL) return this.#session.answering.get(stamp)?.abort();
    }
    this.#take(type, payload, stamp, outlives(this.#protocol) ? more : null);
  }

  /** What the other side's session says to ours. */
  #heed(type, payload) {
    if (type === PING) this.#say(PONG);
    if (type === BYE && payload?.after >= 0) this.#due = Number(payload.after);
    if (type === ACK && !this.#session.acknowledged(payload)) this.#violated(ErrorCode.PROTOCOL_VIOLATION);
  }

  #counted(size) {
    if (this.#session.take(size)) this.#acknowledge();
    else this.#acking ??= after(LATEST_ACK, () => this.#acknowledge());
  }

  #acknowledge() {
    clearTimeout(this.#acking);
    this.#acking = undefined;
    this.#say(ACK, this.#session.acknowledge());
  }

  #take(type, payload, stamp, ms) {
    const types = this.#types;
    const known = this.status === Status.READY;
    switch (type) {
      case types.response:
        return known && this.#settle(stamp, payload);
      case types.responseError:
        return known && this.#settle(stamp, failure(payload), true);
      case types.welcome:
        return known ? this.when.ignored.emit(type, payload) : this.#welcomed(payload, stamp);
      case types.challenge:
        return known ? this.when.ignored.emit(type, payload) : this.#solve(payload);
      case types.hi:
        return known && this.when.ignored.emit(type, payload);
    }
    if (stamp !== null && type.startsWith(`${types.call}:`)) {
      if (!known) return;
      return stamp?.success === true ? this.#settle(type, payload) : this.#settle(type, failure(stamp), true);
    }
    const call = stamp !== null && !type.startsWith(RESERVED);
    const canBe = typeof stamp === "string" && stamp.length <= 512 && (ms === null || (Number.isFinite(ms) && ms >= 0));
    if (call && !canBe) return this.#violated(ErrorCode.PROTOCOL_VIOLATION);
    if (!known) return this.#held.push([type, payload, stamp, ms]);
    if (call) return this.#answer(type, payload, stamp, ms);
    const handlers = this.channel.take(type);
    if (!handlers.length) return this.when.ignored.emit(type, payload);
    for (const handler of handlers) this.#handle(type, handler, payload);
  }

  #welcomed(payload, told) {
    const attempt = this.#attempt;
    let session;
    if (outlives(this.#protocol)) {
      session = told?.resumed ? attempt.resumes : new Session(this.#protocol);
      if (!session?.agree(told)) return this.#violated(ErrorCode.PROTOCOL_VIOLATION);
    }
    const goesOn = told?.resumed && session;
    if (goesOn && !(session === this.#session && session.isWhole)) {
      this.#over();
      return this.#failed(attempt, new WseError(ErrorCode.WS_CLIENT_ERROR, {}, "more was lost than is kept"), true);
    }
    const goal = this.#connecting;
    clearTimeout(attempt.timer);
    this.#attempt = this.#connecting = undefined;
    this.#since = Date.now();
    this.#emitter.together(() => {
      if (!goesOn) this.#over();
      this.#suspended = undefined;
      if (session) this.#begin(session);
      this.#set(Status.READY);
      this.when[goesOn ? "resumed" : "ready"].emit(payload);
    });
    if (goal) {
      clearTimeout(goal.timer);
      goal.resolve(payload);
    }
    for (const message of this.#held.splice(0)) {
      if (this.status === Status.READY) this.#take(...message);
    }
  }

  /** A session begins, or goes on. */
  #begin(session) {
    const { device, resumed, heartbeat } = session.told;
    if (!resumed) this.#count = 0;
    this.#session = session;
    clearTimeout(this.#window);
    for (const data of session.again()) this.#socket.send(data);
    if (device !== this.device) {
      this.device = device;
      this.#place?.keep(device);
    }
    if (!(heartbeat > 0)) return;
    this.#pulse = new Pulse(
      heartbeat,
      () => this.#say(PING),
      () => {
        this.#due = 0;
        this.#lost(1006, HEARTBEAT_LOST, []);
      },
    );
  }

  async #solve(quest) {
    const attempt = this.#attempt;
    try {
      if (!this.#solver) throw new WseError(ErrorCode.SOLVER_MISSING);
      const answer = await this.#solver(quest);
      if (this.#attempt === attempt) this.#say(this.#types.challenge, answer);
    } catch (error) {
      this.#failed(attempt, error, false);
    }
  }

  async #handle(type, handler, payload) {
    try {
      await handler(payload);
    } catch (error) {
      this.#report(ErrorCode.MESSAGE_PROCESSING_ERROR, { type }, error);
    }
  }

  async #answer(name, payload, stamp, ms) {
    const types = this.#types;
    const session = this.#session;
    const here = session ?? this.#socket;
    const old = !session && stamp.startsWith(`${types.call}:`);
    const say = (...reply) => here === (this.#session ?? this.#socket) && this.#post(...reply);
    const caller = new AbortController();
    const { signal } = caller;
    session?.answering.set(stamp, caller);
    const due = Date.now() + ms;
    const timeLeft = () => (ms == null ? undefined : Math.max(0, due - Date.now()) / 1000);
    try {
      const procedure = this.#procedures.get(name);
      if (!procedure) throw new WseError(ErrorCode.RP_NOT_REGISTERED, undefined);
      const value = await procedure(payload, { signal, timeLeft });
      if (signal.aborted) return;
      if (old) say(stamp, value, { success: true });
      else say(types.response, value, stamp);
    } catch (error) {
      if (signal.aborted) return;
      const fail = (told) => (old ? say(stamp, null, told) : say(types.responseError, told, stamp));
      try {
        fail(this.#told(name, error, old));
      } catch (unsayable) {
        fail(this.#told(name, unsayable, old));
      }
    } finally {
      session?.answering.delete(stamp);
    }
  }

  /** What a caller learns of an error: one that is no WseError stays here, under an id. */
  #told(name, error, old) {
    if (error instanceof WseError) {
      const { code, details } = error;
      if (code === ErrorCode.RP_NOT_REGISTERED) return { code };
      return old ? { type: "wse-error", code, details } : { code, details };
    }
    const id = Array.from(crypto.getRandomValues(new Uint8Array(8)), (n) => n.toString(16).padStart(2, "0")).join("");
    this.#report(ErrorCode.MESSAGE_PROCESSING_ERROR, { type: name, id }, error);
    return { code: ErrorCode.RP_EXECUTION_FAILED, message: "Remote procedure failed", details: { id } };
  }

  #settle(stamp, outcome, failed = false) {
    const call = this.#calls.get(stamp);
    if (!call) return;
    this.#calls.delete(stamp);
    call.done();
    if (failed) call.reject(outcome);
    else call.resolve(outcome);
  }
}

function failure(told) {
  const { code, details, message } = told ?? {};
  return new WseError(
    typeof code === "string" ? code : ErrorCode.RP_EXECUTION_FAILED,
    details ?? {},
    typeof message === "string" ? message : "",
  );
}

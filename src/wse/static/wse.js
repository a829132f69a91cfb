// A client of wse for browsers, and for Node with a WebSocket: one device of a user.
// One ES module, without dependencies; its types are in wse.d.ts beside it.

export const ErrorCode = Object.freeze({
  INVALID_CRA_HANDLER: "wse.client.invalid-cra-handler",
  RP_TIMEOUT: "wse.client.rp.timeout",
  RP_DISCONNECT: "wse.client.rp.disconnect",
  CLIENT_ALREADY_CONNECTED: "wse.client.already-connected",
  WS_CLIENT_ERROR: "wse.client.ws-error",
  CONNECTION_NOT_READY: "wse.client.not-ready",
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
const RESERVED = "~wse:";
const LONGEST_TIMER = 2 ** 31; // milliseconds, from which on the platform's fire at once
const COMES_BACK = new Set([1005, 1006, 1011, 1012, 1013, 1014, 4000]);

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

/** One device of a user: it connects, talks, and comes back. */
export class WseClient {
  #emitter;
  #protocol;
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

  constructor(url, options = {}) {
    this.url = String(url);
    this.reconnect = options.reconnect ?? false;
    this.status = Status.IDLE;
    this.channel = new Channel();
    this.#timeout = options.timeout ?? 30;
    this.#backoff = { first: 0.5, factor: 2, cap: 30, ...options.backoff };
    this.#protocol = options.protocol ?? wseJSON;
    this.#types = { ...wseJSON.types, ...this.#protocol.types };
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    const emitter = (this.#emitter = new Emitter((event, cause) => {
      if (event === "error") console.error(cause);
      else this.#report(ErrorCode.MESSAGE_PROCESSING_ERROR, { event }, cause);
    }));
    this.when = {
      connected: signal(emitter, "connected"),
      ready: signal(emitter, "ready", true),
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
      this.#stop(4000, "jump");
      reaching = this.#reach(Status.RE_CONNECTING);
    });
    return reaching;
  }

  close(reason = BY_CLIENT) {
    if (new TextEncoder().encode(reason).length > 123) throw new RangeError("a reason has at most 123 bytes");
    this.#stop(1000, reason);
  }

  challenge(solver) {
    if (typeof solver !== "function") throw new WseError(ErrorCode.INVALID_CRA_HANDLER);
    this.#solver = solver;
  }

  // -- talking

  send(type, payload) {
    this.#ready();
    this.#say(ours(type), payload, null);
  }

  async call(name, payload, options = {}) {
    this.#ready();
    const stamp = `${this.#types.call}:${ours(name)}:${++this.#count}`;
    this.#say(name, payload, stamp);
    return new Promise((resolve, reject) => {
      const timer = this.#after(options.timeout ?? this.#timeout, () =>
        this.#settle(stamp, new WseError(ErrorCode.RP_TIMEOUT, {}, `calling ${name}`)),
      );
      this.#calls.set(stamp, { resolve, reject, timer });
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

  #after(seconds, act) {
    return seconds * 1000 < LONGEST_TIMER ? setTimeout(act, seconds * 1000) : undefined;
  }

  /** Connect, and with reconnection keep trying, for the client's timeout. */
  #reach(status) {
    this.#attempts = 0;
    return new Promise((resolve, reject) => {
      const goal = { resolve, reject, failure: new WseError(ErrorCode.WS_CLIENT_ERROR, {}, "no welcome in time") };
      goal.timer = this.#after(this.#timeout, () => this.#giveUp(goal.failure));
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
    attempt.timer = this.#after(this.#timeout, () =>
      this.#failed(attempt, new WseError(ErrorCode.WS_CLIENT_ERROR, {}, "no welcome in time"), true),
    );
    try {
      const identity = typeof this.#identity === "function" ? await this.#identity() : this.#identity;
      if (this.#attempt === attempt) this.#open(attempt, identity);
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
      try {
        this.#say(this.#types.hi, { identity: identity ?? null, meta: this.#meta }, null);
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
      return new this.#WebSocket(this.url, [this.#protocol.name]);
    } catch (cause) {
      throw new WseError(ErrorCode.WS_CLIENT_ERROR, {}, cause.message, { cause });
    }
  }

  /** Give an attempt up. */
  #failed(attempt, error, temporary) {
    if (this.#attempt !== attempt) return;
    this.#emitter.together(() => {
      if (this.#end(1000, BY_CLIENT)) this.#offline([1000, BY_CLIENT]);
      this.#settled(error, temporary);
    });
  }

  /** An attempt has failed; `temporary` when the next one may not. */
  #settled(error, temporary) {
    if (temporary && this.reconnect) {
      if (this.#connecting) this.#connecting.failure = error;
      this.#wait(error);
    } else if (this.#connecting) {
      this.#giveUp(error);
    } else {
      this.when.error.emit(error);
      this.#set(Status.OFFLINE);
    }
  }

  /** Try again after a while; at once when the page is online or visible again. */
  #wait(error) {
    if (error) {
      this.#attempts += 1;
      if (error instanceof WseError) this.when.error.emit(error);
      else this.#report(ErrorCode.MESSAGE_PROCESSING_ERROR, { event: "connect" }, error);
    }
    if (this.status === Status.OFFLINE) this.#set(Status.RE_CONNECTING);
    const { first, factor, cap } = this.#backoff;
    const page = globalThis.document;
    const retry = (this.#retry = () => {
      if (this.#retry !== retry) return;
      this.#stopWaiting();
      this.#try();
    });
    retry.seen = () => page.visibilityState === "visible" && retry();
    const ceiling = Math.min(cap, first * factor ** Math.min(this.#attempts, 64));
    const timer = this.#after(Math.random() * ceiling, () => {
      if (globalThis.navigator?.onLine !== false) retry();
    });
    retry.timer = timer;
    globalThis.addEventListener?.("online", retry);
    page?.addEventListener("visibilitychange", retry.seen);
  }

  #stopWaiting() {
    const retry = this.#retry;
    if (!retry) return;
    this.#retry = undefined;
    clearTimeout(retry.timer);
    globalThis.removeEventListener?.("online", retry);
    globalThis.document?.removeEventListener("visibilitychange", retry.seen);
  }

  // -- leaving

  /** Let go of the connection, or of the attempt; whether there was a WebSocket that was open. */
  #end(code, reason) {
    const socket = this.#socket;
    const attempt = this.#attempt;
    this.#socket = this.#attempt = undefined;
    if (attempt) clearTimeout(attempt.timer);
    for (const stamp of [...this.#calls.keys()]) {
      this.#settle(stamp, new WseError(ErrorCode.RP_DISCONNECT));
    }
    if (!socket) return false;
    socket.onopen = socket.onmessage = socket.onclose = null;
    if (code) socket.close(code, reason);
    return !attempt || attempt.opened;
  }

  /** End what goes on, for good. */
  #stop(code, reason, error = new WseError(ErrorCode.WS_CLIENT_ERROR, {}, "closed while connecting")) {
    const goal = this.#connecting;
    this.#connecting = undefined;
    this.#stopWaiting();
    const told = this.#end(code, reason);
    if (goal) {
      clearTimeout(goal.timer);
      goal.reject(error);
    }
    this.#offline(told ? [code, reason] : undefined);
  }

  /** Told when it is so: a handler of `closed` may connect again. */
  #offline(end) {
    if (this.status === Status.IDLE) return;
    const changes = this.status !== Status.OFFLINE;
    this.status = Status.OFFLINE;
    this.#emitter.together(() => {
      if (end) this.when.closed.emit(...end);
      if (changes) this.when.updated.emit(Status.OFFLINE);
    });
  }

  /** The WebSocket has closed, or is closed for what came. */
  #lost(code, reason, close) {
    const attempt = this.#attempt;
    const opened = this.#end(close && code, reason);
    if (attempt) {
      const error =
        reason === NOT_AUTHORIZED
          ? new WseError(ErrorCode.NOT_AUTHORIZED)
          : new WseError(ErrorCode.WS_CLIENT_ERROR, { code, reason }, `closed before the welcome: ${code} ${reason}`);
      this.#emitter.together(() => {
        if (opened) this.#offline([code, reason]);
        this.#settled(error, COMES_BACK.has(code));
      });
      return;
    }
    if (opened) this.#offline([code, reason]);
    if (this.reconnect && COMES_BACK.has(code) && this.status === Status.OFFLINE) {
      const stayed = (Date.now() - this.#since) / 1000;
      this.#attempts = stayed > this.#backoff.cap ? 0 : this.#attempts + 1;
      this.#wait();
    }
  }

  // -- what comes

  #ready() {
    if (this.status !== Status.READY) {
      throw new WseError(ErrorCode.CONNECTION_NOT_READY, {}, `the client is ${this.status}`);
    }
  }

  #say(type, payload, stamp) {
    this.#socket.send(this.#protocol.pack(type, payload, stamp));
  }

  #report(code, details, cause) {
    const error = new WseError(code, details, "", { cause });
    if (this.when.error.isHeard()) this.when.error.emit(error);
    else console.error(error);
  }

  #violated(code, cause) {
    this.#report(code, {}, cause);
    if (this.#socket) this.#lost(1000, PROTOCOL_ERROR, true);
  }

  #hear(data) {
    let message;
    try {
      message = this.#protocol.unpack(data);
      if (!Array.isArray(message)) throw new TypeError("no message");
    } catch (error) {
      return this.#violated(ErrorCode.MESSAGE_PROCESSING_ERROR, error);
    }
    const [type, payload = null, stamp = null] = message;
    if (typeof type !== "string") return this.#violated(ErrorCode.PROTOCOL_VIOLATION);
    this.#take(type, payload, stamp);
  }

  #take(type, payload, stamp) {
    const types = this.#types;
    const known = this.status === Status.READY;
    switch (type) {
      case types.response:
        return known && this.#settle(stamp, payload);
      case types.responseError:
        return known && this.#settle(stamp, failure(payload));
      case types.welcome:
        return known ? this.when.ignored.emit(type, payload) : this.#welcomed(payload);
      case types.challenge:
        return known ? this.when.ignored.emit(type, payload) : this.#solve(payload);
      case types.hi:
        return known && this.when.ignored.emit(type, payload);
    }
    if (stamp !== null && type.startsWith(`${types.call}:`)) {
      return known && this.#settle(type, stamp?.success === true ? payload : failure(stamp));
    }
    if (stamp !== null && !type.startsWith(RESERVED) && !(typeof stamp === "string" && stamp.length <= 512)) {
      return this.#violated(ErrorCode.PROTOCOL_VIOLATION);
    }
    if (!known) return this.#held.push([type, payload, stamp]);
    if (stamp !== null && !type.startsWith(RESERVED)) return this.#answer(type, payload, stamp);
    const handlers = this.channel.take(type);
    if (!handlers.length) return this.when.ignored.emit(type, payload);
    for (const handler of handlers) this.#handle(type, handler, payload);
  }

  #welcomed(payload) {
    const goal = this.#connecting;
    clearTimeout(this.#attempt.timer);
    this.#attempt = this.#connecting = undefined;
    this.#since = Date.now();
    this.#set(Status.READY);
    this.when.ready.emit(payload);
    if (goal) {
      clearTimeout(goal.timer);
      goal.resolve(payload);
    }
    for (const message of this.#held.splice(0)) {
      if (this.status === Status.READY) this.#take(...message);
    }
  }

  async #solve(quest) {
    const attempt = this.#attempt;
    try {
      if (!this.#solver) throw new WseError(ErrorCode.SOLVER_MISSING);
      const answer = await this.#solver(quest);
      if (this.#attempt === attempt) this.#say(this.#types.challenge, answer, null);
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

  async #answer(name, payload, stamp) {
    const socket = this.#socket;
    const types = this.#types;
    const old = stamp.startsWith(`${types.call}:`);
    const say = (...reply) => this.#socket === socket && this.#say(...reply);
    try {
      const procedure = this.#procedures.get(name);
      if (!procedure) throw new WseError(ErrorCode.RP_NOT_REGISTERED, undefined);
      const value = await procedure(payload);
      if (old) say(stamp, value, { success: true });
      else say(types.response, value, stamp);
    } catch (error) {
      const fail = (told) => (old ? say(stamp, null, told) : say(types.responseError, told, stamp));
      try {
        fail(this.#told(name, error, old));
      } catch (unsayable) {
        fail(this.#told(name, unsayable, old));
      }
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

  #settle(stamp, outcome) {
    const call = this.#calls.get(stamp);
    if (!call) return;
    this.#calls.delete(stamp);
    clearTimeout(call.timer);
    if (outcome instanceof WseError) call.reject(outcome);
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

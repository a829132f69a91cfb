// What is the browser client's own: waiting, pages that are offline or hidden, handlers, protocols.
// Its WebSocket is made of paper, and its clock is turned.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { ErrorCode, Status, WseClient, WseError, wseJSON } from "../../src/wse/static/wse.js";

class Paper {
  static made = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols, readyState: 0, sent: [] });
    Paper.made.push(this);
  }

  send(data) {
    this.sent.push(data);
  }

  close(...end) {
    this.readyState = 2;
    this.left = end;
  }

  open() {
    this.readyState = 1;
    this.onopen({});
  }

  hear(...message) {
    this.onmessage({ data: JSON.stringify(message) });
  }

  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  get said() {
    return this.sent.map((data) => JSON.parse(data));
  }
}

const settled = async () => {
  for (let turn = 0; turn < 20; turn += 1) await null;
};
const last = () => Paper.made.at(-1);
const make = (options = {}) => new WseClient("ws://test/", { WebSocket: Paper, ...options });
const code = (expected) => (error) => error instanceof WseError && error.code === expected;

async function welcomed(options, identity = "key") {
  const client = make(options);
  const connecting = client.connect(identity);
  await settled();
  last().open();
  last().hear("~wse:welcome", { n: 1 });
  assert.deepEqual(await connecting, { n: 1 });
  return client;
}

async function passes(seconds) {
  mock.timers.tick(seconds * 1000);
  await settled();
}

/** A page, or the lack of one: what the client listens to, and how to make it happen. */
class Heard extends EventTarget {
  addEventListener(...args) {
    listening += 1;
    super.addEventListener(...args);
  }

  removeEventListener(...args) {
    listening -= 1;
    super.removeEventListener(...args);
  }
}
class Page extends Heard {
  visibilityState = "hidden";
}
let listening;
let onLine;
let window;

let shown;

beforeEach(() => {
  Paper.made = [];
  shown = [];
  listening = 0;
  onLine = true;
  window = new Heard();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 0.5);
  mock.method(console, "error", (error) => shown.push(error));
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { get onLine() { return onLine; } } });
  globalThis.document = new Page();
  globalThis.addEventListener = window.addEventListener.bind(window);
  globalThis.removeEventListener = window.removeEventListener.bind(window);
});

afterEach(() => {
  mock.restoreAll();
  mock.timers.reset();
  delete globalThis.document;
});

// -- connecting

test("connect says who this is and gives the welcome", async () => {
  const client = make();
  const connecting = client.connect({ token: 1 }, { app: "x" });
  await settled();
  assert.deepEqual([last().url, last().protocols], ["ws://test/", ["wse-default-json"]]);
  last().open();
  assert.deepEqual(last().said, [["~wse:hi", { identity: { token: 1 }, meta: { app: "x" } }, null]]);
  last().hear("~wse:welcome");
  assert.equal(await connecting, null);
  assert.equal(client.status, Status.READY);
  await assert.rejects(client.connect(), code(ErrorCode.CLIENT_ALREADY_CONNECTED));
});

test("an identity function is asked on every attempt", async () => {
  let asked = 0;
  await welcomed({ reconnect: true }, async () => `token ${(asked += 1)}`);
  last().end();
  await passes(1);
  last().open();
  assert.equal(last().said[0][1].identity, "token 2");
});

test("what an identity function throws, connect throws", async () => {
  const client = make({ reconnect: true });
  await assert.rejects(client.connect(() => { throw new RangeError("no token"); }), RangeError);
  assert.equal(client.status, Status.OFFLINE);
  assert.equal(Paper.made.length, 0);
});

test("an identity that cannot be packed, and an address that is none, are connect's errors", async () => {
  const client = make({ reconnect: true });
  const connecting = assert.rejects(client.connect(1n), TypeError);
  await settled();
  last().open();
  await connecting;
  assert.deepEqual([client.status, last().left], [Status.OFFLINE, [1000, "wse.by-client"]]);
  const nowhere = new WseClient("no://where", { WebSocket: class { constructor() { throw new SyntaxError("no URL"); } } });
  await assert.rejects(nowhere.connect("key"), (error) =>
    code(ErrorCode.WS_CLIENT_ERROR)(error) && error.cause instanceof SyntaxError);
  assert.equal(nowhere.status, Status.OFFLINE);
});

test("a timeout may be for ever", async () => {
  const client = await welcomed({ timeout: Infinity });
  const calling = client.call("slow");
  await passes(86400);
  last().hear("~wse:response", "at last", last().said.at(-1)[2]);
  assert.equal(await calling, "at last");
});

test("a server that says nothing is given up in time", async () => {
  const client = make({ timeout: 3 });
  const connecting = client.connect();
  await settled();
  last().open();
  const failed = assert.rejects(connecting, code(ErrorCode.WS_CLIENT_ERROR));
  await passes(3);
  await failed;
  assert.deepEqual(last().left, [1000, "wse.by-client"]);
  assert.equal(client.status, Status.OFFLINE);
});

test("connect with reconnection keeps trying for its timeout", async () => {
  const client = make({ reconnect: true, timeout: 10 });
  const failed = assert.rejects(client.connect(), code(ErrorCode.WS_CLIENT_ERROR));
  for (let tries = 0; tries < 40; tries += 1) {
    await settled();
    if (last().readyState === 0) last().end();
    await passes(0.25);
  }
  await failed;
  assert.ok(Paper.made.length > 3 && Paper.made.length < 20, `${Paper.made.length} attempts`);
  assert.equal(client.status, Status.OFFLINE);
});

test("closing while connecting rejects, and nothing is heard of the attempt any more", async () => {
  const client = make();
  const connecting = client.connect();
  await settled();
  const failed = assert.rejects(connecting, code(ErrorCode.WS_CLIENT_ERROR));
  client.close();
  await failed;
  assert.equal(last().onmessage, null);
  assert.equal(client.status, Status.OFFLINE);
});

test("a solver that throws is connect's error, and none is solver-missing", async () => {
  for (const [solver, expected] of [[() => { throw new RangeError("no"); }, RangeError], [undefined, code(ErrorCode.SOLVER_MISSING)]]) {
    const client = make({ reconnect: true });
    if (solver) client.challenge(solver);
    const failed = assert.rejects(client.connect(), expected);
    await settled();
    last().open();
    last().hear("~wse:challenge", {});
    await failed;
    assert.deepEqual(last().left, [1000, "wse.by-client"]);
    assert.equal(client.status, Status.OFFLINE);
  }
  assert.throws(() => make().challenge("no function"), code(ErrorCode.INVALID_CRA_HANDLER));
});

// -- coming back

test("the wait before an attempt doubles up to the cap, with full jitter", async () => {
  await welcomed({ reconnect: true, backoff: { first: 1, cap: 4 } });
  last().end();
  const waits = [];
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const made = Paper.made.length;
    let waited = 0;
    while (Paper.made.length === made) {
      await passes(0.25);
      waited += 0.25;
    }
    waits.push(waited);
    last().end();
    await settled();
  }
  assert.deepEqual(waits, [1, 2, 2, 2, 2]); // half of 2, 4, 4, ...
});

test("a page that is offline waits until it is online, and then does not wait", async () => {
  const client = await welcomed({ reconnect: true });
  onLine = false;
  last().end();
  await passes(3600);
  assert.equal(Paper.made.length, 1);
  assert.equal(client.status, Status.RE_CONNECTING);
  onLine = true;
  window.dispatchEvent(new Event("online"));
  await settled();
  assert.equal(Paper.made.length, 2);
});

test("a page that becomes visible tries at once", async () => {
  await welcomed({ reconnect: true, backoff: { first: 100, cap: 100 } });
  last().end();
  document.dispatchEvent(new Event("visibilitychange"));
  await settled();
  assert.equal(Paper.made.length, 1);
  document.visibilityState = "visible";
  document.dispatchEvent(new Event("visibilitychange"));
  await settled();
  assert.equal(Paper.made.length, 2);
  document.dispatchEvent(new Event("visibilitychange"));
  await passes(200);
  assert.equal(Paper.made.length, 2, "one attempt at a time");
});

test("closing ends the wait, and leaves no timer and no listener", async () => {
  const client = await welcomed({ reconnect: true });
  const calling = assert.rejects(client.call("slow"), code(ErrorCode.RP_DISCONNECT));
  last().end();
  await calling;
  const cleared = mock.method(globalThis, "clearTimeout");
  assert.equal(listening, 2);
  client.close();
  assert.deepEqual([listening, cleared.mock.callCount()], [0, 1]);
  window.dispatchEvent(new Event("online"));
  await passes(3600);
  assert.equal(Paper.made.length, 1);
  assert.equal(client.status, Status.OFFLINE);
});

test("a connection that stayed begins anew with the shortest wait", async () => {
  await welcomed({ reconnect: true, backoff: { first: 1, cap: 8 } });
  await passes(9);
  last().end();
  await passes(0.5);
  assert.equal(Paper.made.length, 2);
});

test("a refusal when coming back is told and is the end", async () => {
  const client = await welcomed({ reconnect: true });
  const errors = [];
  client.when.error((error) => errors.push(error.code));
  last().end();
  await passes(1);
  last().open();
  last().end(1000, "wse.not-authorized");
  await passes(60);
  assert.deepEqual(errors, [ErrorCode.NOT_AUTHORIZED]);
  assert.equal(client.status, Status.OFFLINE);
  assert.equal(Paper.made.length, 2);
});

test("a handler of closed may connect again, to another server", async () => {
  const client = await welcomed({ reconnect: true });
  const statuses = [];
  client.when.closed(() => {
    client.url = "ws://other/";
    client.connect("again").catch(() => {});
  });
  client.when.updated((status) => statuses.push(status));
  last().end();
  await settled();
  assert.equal(last().url, "ws://other/");
  assert.deepEqual(statuses, ["READY", "OFFLINE", "CONNECTING"]);
  await passes(60);
  assert.equal(Paper.made.length, 2);
});

test("a handler of closed may connect again after a refusal", async () => {
  const client = make();
  client.when.closed.once(() => client.connect("again").catch(() => {}));
  const refused = assert.rejects(client.connect("key"), code(ErrorCode.NOT_AUTHORIZED));
  await settled();
  last().open();
  last().end(1000, "wse.not-authorized");
  await refused;
  await settled();
  assert.equal(Paper.made.length, 2);
  last().open();
  last().hear("~wse:welcome", 1);
  assert.equal(client.status, Status.READY);
});

// -- talking

test("what cannot be said throws", async () => {
  const client = make();
  assert.throws(() => client.send("hello"), code(ErrorCode.CONNECTION_NOT_READY));
  await assert.rejects(client.call("hello"), code(ErrorCode.CONNECTION_NOT_READY));
  const ready = await welcomed();
  assert.throws(() => ready.send("~wse:hi"), RangeError);
  assert.throws(() => ready.send(1), TypeError);
  await assert.rejects(ready.call("~wse:x"), RangeError);
  await assert.rejects(ready.call("big", 1n), TypeError);
  assert.throws(() => ready.close("x".repeat(124)), RangeError);
  assert.equal(ready.status, Status.READY);
  assert.throws(() => ready.channel.on("~wse:x", () => {}), RangeError);
  ready.register("one", () => 1);
  assert.throws(() => ready.register("one", () => 1), code(ErrorCode.RP_ALREADY_REGISTERED));
  ready.unregister("one");
  ready.register("one", () => 1);
});

test("a call ends in time, and its late answer is dropped without a word", async () => {
  const client = await welcomed({ timeout: 5 });
  const told = [];
  client.when.ignored((...what) => told.push(what));
  client.when.error((error) => told.push(error));
  const ends = assert.rejects(client.call("slow", 1, { timeout: 2 }), code(ErrorCode.RP_TIMEOUT));
  await passes(2);
  await ends;
  last().hear("~wse:response", 1, last().said[1][2]);
  assert.deepEqual(told, []);
});

test("of what a procedure throws the caller learns an id, the page everything", async () => {
  const client = await welcomed();
  const errors = [];
  client.when.error((error) => errors.push(error));
  client.register("boom", () => { throw new Error("a secret"); });
  client.register("circle", () => { const circle = {}; circle.circle = circle; return circle; });
  for (const name of ["boom", "circle"]) {
    last().hear(name, null, "s");
    await settled();
    const [type, told, stamp] = last().said.at(-1);
    assert.deepEqual([type, stamp], ["~wse:response-err", "s"]);
    assert.equal(told.code, ErrorCode.RP_EXECUTION_FAILED);
    assert.match(told.details.id, /^[0-9a-f]{16}$/);
    assert.equal(errors.at(-1).details.id, told.details.id);
    assert.ok(errors.at(-1).cause instanceof Error);
  }
  assert.ok(!last().sent.join().includes("a secret"));
});

test("an answer to a connection that has ended goes nowhere", async () => {
  const client = await welcomed({ reconnect: true });
  let answer;
  client.register("slow", () => new Promise((resolve) => { answer = resolve; }));
  const first = last();
  first.hear("slow", null, "s");
  await settled();
  first.end();
  await passes(1);
  last().open();
  last().hear("~wse:welcome");
  answer(1);
  await settled();
  assert.equal(first.sent.length, 1);
  assert.equal(last().sent.length, 1);
});

// -- handlers

test("handlers are added, called once, and removed", async () => {
  const client = await welcomed();
  const heard = [];
  const all = client.channel.on("n", (n) => heard.push(["all", n]));
  client.channel.once("n", (n) => heard.push(["once", n]));
  last().hear("n", 1);
  last().hear("n", 2);
  client.channel.off("n", all);
  last().hear("n", 3);
  client.channel.on("n", all);
  client.channel.off("n");
  last().hear("n", 4);
  assert.deepEqual(heard, [["all", 1], ["once", 1], ["all", 2]]);
});

test("events are added, called once, removed, and some are remembered", async () => {
  const client = await welcomed();
  const heard = [];
  client.when.ready((welcome) => heard.push(["ready", welcome]));
  client.when.updated.once((status) => heard.push(["updated", status]));
  client.when.closed(() => heard.push("never"))
  client.when.closed.off(client.when.closed((...end) => heard.push(end)));
  last().end(1000, "why");
  assert.deepEqual(heard, [["ready", { n: 1 }], ["updated", "READY"], "never"]);
});

test("an event that a handler causes is told after the one at hand", async () => {
  const client = await welcomed();
  const heard = [];
  client.when.ignored((type) => {
    heard.push(`first ${type}`);
    if (type === "a") last().hear("b");
  });
  client.when.ignored((type) => heard.push(`second ${type}`));
  last().hear("a");
  assert.deepEqual(heard, ["first a", "second a", "first b", "second b"]);
});

test("a handler that throws, or rejects, is reported and breaks nothing", async () => {
  const client = await welcomed();
  const errors = [];
  client.when.error((error) => errors.push([error.code, error.details, error.cause.message]));
  client.when.error(() => { throw new Error("of the error handler"); });
  client.channel.on("a", () => { throw new Error("at once"); });
  client.channel.on("b", async () => { throw new Error("later"); });
  client.when.ignored(() => Promise.reject(new Error("of an event")));
  for (const type of ["a", "b", "c"]) last().hear(type);
  await settled();
  const failed = ErrorCode.MESSAGE_PROCESSING_ERROR;
  assert.deepEqual(errors.sort(), [
    [failed, { event: "ignored" }, "of an event"],
    [failed, { type: "a" }, "at once"],
    [failed, { type: "b" }, "later"],
  ].sort());
  assert.equal(client.status, Status.READY);
});

test("what a handler throws is shown where nobody listens to errors", async () => {
  const client = await welcomed();
  client.channel.on("a", () => { throw new Error("of a message"); });
  client.when.ignored(() => { throw new Error("of an event"); });
  for (const type of ["a", "b"]) last().hear(type);
  await settled();
  assert.deepEqual(shown.map((error) => error.cause.message), ["of a message", "of an event"]);
  client.when.error(() => { throw new Error("of an error"); });
  last().hear("a");
  await settled();
  assert.equal(shown.at(-1).message, "of an error");
});

test("an error that cannot be said is answered with an id", async () => {
  const client = await welcomed();
  client.register("odd", () => { throw new WseError("odd", { amount: 1n }); });
  const errors = [];
  client.when.error((error) => errors.push(error));
  for (const stamp of ["s1", "~wse:call:odd:1"]) {
    last().hear("odd", null, stamp);
    await settled();
    const [type, payload, outcome] = last().said.at(-1);
    const told = type === "~wse:response-err" ? payload : outcome;
    assert.equal(told.code, ErrorCode.RP_EXECUTION_FAILED);
    assert.equal(told.details.id, errors.at(-1).details.id);
    assert.ok(errors.at(-1).cause instanceof TypeError);
  }
});

test("a handler of closed does not come between a jump and where it goes", async () => {
  const client = await welcomed();
  const refused = [];
  client.when.closed(() => client.connect().catch((error) => refused.push(error.code)));
  const jumping = client.jump("ws://other/");
  await settled();
  assert.equal(last().url, "ws://other/");
  last().open();
  last().hear("~wse:welcome", 2);
  assert.equal(await jumping, 2);
  assert.deepEqual(refused, [ErrorCode.CLIENT_ALREADY_CONNECTED]);
  assert.equal(Paper.made.length, 2);
});

test("a WebSocket that fails has somebody who listens", async () => {
  const client = make();
  const failed = assert.rejects(client.connect(), code(ErrorCode.WS_CLIENT_ERROR));
  await settled();
  last().onerror({});
  last().end();
  await failed;
});

// -- protocols

test("a protocol may be of a class, and name some of its types", async () => {
  class Shouting {
    #loudly = (text) => text.toUpperCase();
    name = "shouting";
    types = { hi: "HI" };
    pack(type, payload, stamp) {
      return JSON.stringify([this.#loudly(type), payload ?? null, stamp]);
    }
    unpack(data) {
      return JSON.parse(data);
    }
  }
  const client = make({ protocol: new Shouting() });
  const connecting = client.connect("me");
  await settled();
  last().open();
  assert.equal(last().said[0][0], "HI");
  last().hear("~wse:welcome", 3);
  assert.equal(await connecting, 3);
});

test("a protocol of one's own packs, in bytes if it likes, and names its types", async () => {
  const lines = {
    name: "lines",
    types: { ...wseJSON.types, hi: "HELLO", welcome: "WELCOME" },
    pack: (type, payload, stamp) => new TextEncoder().encode([type, JSON.stringify(payload), stamp].join("\n")),
    unpack: (data) => {
      const [type, payload, stamp] = new TextDecoder().decode(data).split("\n");
      return [type, JSON.parse(payload), stamp || null];
    },
  };
  const client = make({ protocol: lines });
  const connecting = client.connect("me");
  await settled();
  assert.deepEqual(last().protocols, ["lines"]);
  last().open();
  assert.equal(new TextDecoder().decode(last().sent[0]), 'HELLO\n{"identity":"me","meta":{}}\n');
  last().onmessage({ data: new TextEncoder().encode("WELCOME\n1\n").buffer });
  assert.equal(await connecting, 1);
});

test("what cannot be read is the end", async () => {
  for (const [data, expected] of [
    ["no json", ErrorCode.MESSAGE_PROCESSING_ERROR],
    ["{}", ErrorCode.MESSAGE_PROCESSING_ERROR],
    ["[1]", ErrorCode.PROTOCOL_VIOLATION],
    ['["a",1,{}]', ErrorCode.PROTOCOL_VIOLATION],
    [new Uint8Array([0xff]).buffer, ErrorCode.MESSAGE_PROCESSING_ERROR],
  ]) {
    const client = await welcomed({ reconnect: true });
    const told = [];
    client.when.error((error) => told.push(error.code));
    client.when.closed((...end) => told.push(end));
    const socket = last();
    socket.onmessage({ data });
    assert.deepEqual(told, [expected, [1000, "wse.protocol-error"]]);
    assert.deepEqual(socket.left, [1000, "wse.protocol-error"]);
    assert.equal(client.status, Status.OFFLINE);
  }
});

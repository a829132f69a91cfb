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

  open(protocol = "wse-default-json") {
    this.protocol = protocol;
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

  /** What was said after the hi. */
  get talk() {
    return this.said.slice(1);
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

/** In steps, as a timer that is set meanwhile counts from their end. */
async function passes(seconds) {
  const milliseconds = Math.round(seconds * 1000);
  const step = Math.max(50, Math.ceil(milliseconds / 2000));
  for (let left = milliseconds; left >= 0; left -= step) {
    mock.timers.tick(Math.min(step, left));
    await settled();
  }
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
let locks;

let shown;

beforeEach(() => {
  Paper.made = [];
  shown = [];
  listening = 0;
  onLine = true;
  locks = undefined;
  window = new Heard();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 0.5);
  mock.method(console, "error", (error) => shown.push(error));
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { get onLine() { return onLine; }, get locks() { return locks; } } });
  globalThis.document = new Page();
  globalThis.addEventListener = window.addEventListener.bind(window);
  globalThis.removeEventListener = window.removeEventListener.bind(window);
});

afterEach(() => {
  mock.restoreAll();
  mock.timers.reset();
  delete globalThis.document;
  delete globalThis.sessionStorage;
});

// -- connecting

test("connect says who this is and gives the welcome", async () => {
  const client = make();
  const connecting = client.connect({ token: 1 }, { app: "x" });
  await settled();
  assert.deepEqual([last().url, last().protocols], ["ws://test/", ["wse.5.json", "wse-default-json"]]);
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

test("who closes while the identity is asked for opens nothing", async () => {
  const client = make();
  let tell;
  const failed = assert.rejects(client.connect(() => new Promise((resolve) => { tell = resolve; })), code(ErrorCode.WS_CLIENT_ERROR));
  await settled();
  client.close();
  await failed;
  tell("too late");
  await settled();
  assert.equal(Paper.made.length, 0);
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
  await passes(20);
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
  const timers = cleared.mock.calls.filter(({ arguments: [timer] }) => timer !== undefined);
  assert.deepEqual([listening, timers.length], [0, 1]);
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

// -- sessions that outlive a connection

const WELCOME = { session: "s1", conn: "c1", device: "d1", resumed: false, received: 0, window: 120, ring: 1024, ring_bytes: 2 ** 20, heartbeat: 25 };
const RESUMED = { ...WELCOME, resumed: true };

/** A client whose connection may be lost. Everything that it tells is in `client.told`. */
async function lasting(options, stamp = WELCOME) {
  const client = make({ reconnect: true, backoff: { first: 0.5, cap: 0.5 }, ...options });
  client.told = [];
  for (const [name, when] of Object.entries(client.when)) {
    if (name !== "ignored") when((...what) => client.told.push([name, ...what.map((one) => one?.code ?? one)]));
  }
  const connecting = client.connect("key");
  await settled();
  last().open("wse.5.json");
  last().hear("~wse:welcome", { n: 1 }, stamp);
  assert.deepEqual(await connecting, { n: 1 });
  client.told.splice(0);
  return client;
}

/** The connection is lost, and there is another: its hi. */
async function torn(code = 1006) {
  last().end(code);
  return again();
}

async function again() {
  const made = Paper.made.length;
  await passes(0.5);
  assert.equal(Paper.made.length, made + 1);
  last().open("wse.5.json");
  return last().said[0][1];
}

function back(received, stamp = RESUMED) {
  last().hear("~wse:welcome", { n: 2 }, { ...stamp, received });
}

/** How a call ended, as soon as it has. */
function outcome(calling) {
  const told = [];
  calling.then((value) => told.push(value), (error) => told.push(error.code ?? error));
  return told;
}

test("a lost connection is no end: what was not counted is sent again, then what was said meanwhile", async () => {
  const client = await lasting();
  for (const n of [1, 2, 3]) client.send("n", n);
  last().hear("~wse:ack", 1);
  last().hear("m");
  const hi = await torn();
  assert.deepEqual(hi, { identity: "key", meta: {}, device: "d1", resume: { session: "s1", received: 1 } });
  client.send("n", 4);
  assert.deepEqual(last().talk, []);
  client.when.updated((status) => status === Status.READY && client.send("n", 5));
  back(2);
  assert.deepEqual(last().talk, [["n", 3], ["n", 4], ["n", 5]]);
  assert.deepEqual(client.told, [
    ["suspended", 1006, ""],
    ["updated", "RE_CONNECTING"],
    ["connected"],
    ["updated", "READY"],
    ["resumed", { n: 2 }],
  ]);
  last().hear("~wse:ack", 5);
  assert.equal(client.status, Status.READY);
});

test("numbers go on from what the other side has", async () => {
  const client = await lasting();
  for (const n of [1, 2, 3]) client.send("n", n);
  await torn();
  back(1);
  last().hear("~wse:ack", 2);
  assert.deepEqual((await torn()).resume, { session: "s1", received: 0 });
  back(2);
  assert.deepEqual(last().talk, [["n", 3]]);
  await torn();
  back(3);
  assert.deepEqual(last().talk, []);
});

test("after the codes of an accident a session goes on, after others it does not", async () => {
  for (const accident of [1005, 1006, 1011, 1012, 1013, 1014]) {
    const client = await lasting();
    assert.ok((await torn(accident)).resume, `${accident}`);
    assert.deepEqual(client.told[0], ["suspended", accident, ""]);
  }
  for (const end of [1000, 1001, 1002, 1008, 4000]) {
    const client = await lasting();
    last().end(end);
    assert.deepEqual(client.told.slice(0, 2), [["closed", end, ""], ["updated", "OFFLINE"]]);
    assert.throws(() => client.send("n"), code(ErrorCode.CONNECTION_NOT_READY));
    client.close();
  }
  for (const [options, stamp] of [[{ reconnect: false }, WELCOME], [{}, { ...WELCOME, window: 0 }]]) {
    const client = await lasting(options, stamp);
    last().end(1006);
    assert.deepEqual(client.told.slice(0, 2), [["closed", 1006, ""], ["updated", "OFFLINE"]]);
    client.close();
  }
});

test("without reconnection a session is not gone on with, and the device is the same", async () => {
  const client = await lasting({ reconnect: false });
  last().end();
  client.connect("key").catch(() => {});
  await settled();
  last().open("wse.5.json");
  assert.deepEqual(last().said, [["~wse:hi", { identity: "key", meta: {}, device: "d1" }]]);
});

test("a call outlives its connection, in both directions", async () => {
  const client = await lasting();
  let answer;
  client.register("slow", () => new Promise((resolve) => { answer = resolve; }));
  client.register("prompt", () => 1);
  const first = outcome(client.call("first", 1));
  assert.deepEqual(last().talk, [["first", 1, "1", 30000]]);
  last().hear("slow", null, "s1");
  last().hear("prompt", null, "s2");
  last().hear("prompt", null, "~wse:call:s3");
  await settled();
  await torn();
  const second = outcome(client.call("second", null, { timeout: 5 }));
  answer("late");
  await settled();
  back(1);
  assert.deepEqual(last().talk, [
    ["~wse:response", 1, "s2"],
    ["~wse:response", 1, "~wse:call:s3"],
    ["second", null, "2", 5000],
    ["~wse:response", "late", "s1"],
  ]);
  last().hear("~wse:response", "one", "1");
  last().hear("~wse:response-err", { code: "mine" }, "2");
  await settled();
  assert.deepEqual([first, second], [["one"], ["mine"]]);
});

test("a session that is not gone on with is told as lost, and its calls fail", async () => {
  const client = await lasting();
  client.send("n", 1);
  client.send("n", 2, { keep: false });
  const calling = outcome(client.call("slow"));
  last().hear("~wse:ack", 1);
  await torn();
  client.send("n", 3);
  client.told.splice(0);
  back(0, { ...WELCOME, session: "s2" });
  await settled();
  assert.deepEqual(calling, [ErrorCode.RP_DISCONNECT]);
  assert.deepEqual(client.told, [["lost", 3], ["updated", "READY"], ["ready", { n: 2 }]]);
  assert.deepEqual(last().talk, []);
  client.call("anew").catch(() => {});
  assert.deepEqual(last().talk, [["anew", null, "1", 30000]]);
  assert.deepEqual((await torn()).resume, { session: "s2", received: 0 });
});

test("once the window has passed nothing waits any more, and the client still comes back", async () => {
  const client = await lasting({ backoff: { first: 1000, cap: 1000 } }, { ...WELCOME, window: 60 });
  const calling = outcome(client.call("slow", null, { timeout: 600 }));
  last().end();
  await passes(59);
  client.send("n", 1);
  assert.deepEqual(calling, []);
  client.told.splice(0);
  await passes(1);
  assert.deepEqual([client.told, calling], [[["lost", 2]], [ErrorCode.RP_DISCONNECT]]);
  assert.throws(() => client.send("n", 2), code(ErrorCode.CONNECTION_NOT_READY));
  assert.equal(client.status, Status.RE_CONNECTING);
  await passes(445);
  last().open("wse.5.json");
  assert.equal(last().said[0][1].resume, undefined);
  back(0, WELCOME);
  assert.deepEqual(client.told.slice(1), [["connected"], ["updated", "READY"], ["ready", { n: 2 }]]);
});

test("a session that is gone on with after it was told as lost is left for a fresh one", async () => {
  const client = await lasting({}, { ...WELCOME, window: 1 });
  client.send("n", 1);
  await torn();
  await passes(1);
  assert.deepEqual(client.told.at(-1), ["lost", 1]);
  client.told.splice(0);
  back(1);
  assert.deepEqual(last().left, [1000, "wse.by-client"]);
  assert.equal((await again()).resume, undefined);
  back(0, WELCOME);
  assert.deepEqual(client.told, [["error", ErrorCode.WS_CLIENT_ERROR], ["connected"], ["updated", "READY"], ["ready", { n: 2 }]]);
  assert.deepEqual(last().talk, []);
});

test("who gives up while suspended tells what is lost, and the end that was not told", async () => {
  const endings = [
    [(client) => client.close("enough"), [1000, "enough"]],
    [(client) => { client.jump("ws://other/").catch(() => {}); }, [4000, "jump"]],
    [async () => { await again(); last().end(1000, "wse.replaced"); }, [1000, "wse.replaced"]],
    [async () => { await again(); last().hear("~wse:challenge", 1); await settled(); }, [1000, "wse.by-client"]],
    [async () => { await again(); back(9); }, [1000, "wse.protocol-error"]],
  ];
  for (const [end, expected] of endings) {
    const client = await lasting();
    const calling = outcome(client.call("slow"));
    last().end();
    client.told.splice(0);
    await end(client);
    await settled();
    assert.deepEqual(calling, [ErrorCode.RP_DISCONNECT]);
    const told = client.told.filter(([name]) => name !== "error" && name !== "connected");
    assert.deepEqual(told.slice(0, 3), [["lost", 1], ["closed", ...expected], ["updated", "OFFLINE"]]);
    client.close();
  }
});

test("a server that goes on and fails is no end while the session waits", async () => {
  const client = await lasting({ timeout: 3 });
  await torn();
  last().end(1013, "busy");
  await again();
  await passes(2.8);
  assert.deepEqual(last().left, [], "a code would end the session");
  await again();
  back(0);
  const names = client.told.map(([name]) => name);
  assert.deepEqual(names, ["suspended", "updated", "connected", "error", "connected", "error", "connected", "updated", "resumed"]);
});

test("handlers of suspended may send, and may leave", async () => {
  const client = await lasting();
  client.when.suspended.once(() => client.send("n", 1));
  await torn();
  back(0);
  assert.deepEqual(last().talk, [["n", 1]]);
  client.when.suspended(() => client.close());
  last().end();
  await passes(100);
  assert.equal(Paper.made.length, 2);
  assert.equal(client.status, Status.OFFLINE);
});

test("what may be lost is skipped without a connection, and not sent again", async () => {
  const client = await lasting();
  client.send("n", 1);
  client.send("cursor", 2, { keep: false });
  client.send("n", 3);
  last().hear("~wse:ack", 3);
  client.send("cursor", 4, { keep: false });
  client.send("n", 5);
  await torn();
  client.send("cursor", 6, { keep: false });
  back(3);
  assert.deepEqual(last().talk, [["n", 5]]);
  last().hear("~wse:ack", 5);
  assert.equal(client.status, Status.OFFLINE, "of five it has sent four that count");
});

test("without a connection so many messages, and so many bytes, find room, and none falls out", async () => {
  const many = await lasting();
  last().end();
  for (let n = 0; n < 1024; n += 1) many.send("n", n);
  assert.throws(() => many.send("n"), code(ErrorCode.OUTBOX_FULL));
  await assert.rejects(many.call("n"), code(ErrorCode.OUTBOX_FULL));
  many.send("cursor", 1, { keep: false });
  await again();
  back(0);
  assert.deepEqual(last().talk.map(([, n]) => n), Array.from({ length: 1024 }, (_, n) => n));
  const large = await lasting();
  last().end();
  const umlauts = "\u00e4".repeat(2 ** 18);
  large.send("half", umlauts);
  const leaving = new AbortController();
  large.call("half", umlauts, { signal: leaving.signal }).catch(() => {});
  assert.throws(() => large.send("small"), code(ErrorCode.OUTBOX_FULL));
  leaving.abort();
  large.send("small");
});

test("answers always find room", async () => {
  const client = await lasting();
  let answer;
  client.register("slow", () => new Promise((resolve) => { answer = resolve; }));
  last().hear("slow", null, "s");
  await settled();
  last().end();
  for (let n = 0; n < 1024; n += 1) client.send("n", n);
  answer(1);
  await settled();
  await again();
  back(0);
  assert.deepEqual(last().said.at(-1), ["~wse:response", 1, "s"]);
});

test("with a connection the oldest fall out, and a server that lacks them gets a fresh session", async () => {
  for (const [count, payload, kept] of [[1030, null, 1024], [5, "x".repeat(2 ** 18), 4]]) {
    const fell = count + 1 - kept; // with the call that follows
    for (const received of [fell, fell - 1]) {
      const client = await lasting();
      for (let n = 0; n < count; n += 1) client.send("n", payload);
      const calling = outcome(client.call("slow"));
      last().hear("~wse:ack", 1);
      await torn();
      client.told.splice(0);
      back(received);
      await settled();
      const whole = received === fell;
      assert.equal(last().talk.length, whole ? kept : 0);
      assert.deepEqual(calling, whole ? [] : [ErrorCode.RP_DISCONNECT]);
      assert.deepEqual(client.told[0], whole ? ["updated", "READY"] : ["lost", count]);
      if (!whole) {
        assert.deepEqual(last().left, [1000, "wse.by-client"]);
        assert.equal((await again()).resume, undefined);
      }
      client.close();
    }
  }
});

test("what comes is acknowledged in time, and sooner where it is much", async () => {
  const client = await lasting({}, { ...WELCOME, ring: 8, ring_bytes: 4000 });
  last().hear("m");
  await passes(0.19);
  assert.deepEqual(last().talk, []);
  await passes(0.01);
  assert.deepEqual(last().talk, [["~wse:ack", 1]]);
  await passes(1);
  last().hear("m");
  last().hear("~wse:ping");
  last().hear("~wse:pong");
  last().hear("~wse:ack", 0);
  last().hear("~wse:bye", { reason: "", after: 0.1 });
  assert.deepEqual(last().talk.slice(1), [["~wse:pong"]]);
  last().hear("nobody handles this");
  assert.deepEqual(last().talk.slice(2), [["~wse:ack", 3]]);
  last().hear("m", "\u00e4".repeat(500));
  assert.deepEqual(last().talk.slice(3), [["~wse:ack", 4]]);
  await passes(1);
  assert.equal(last().talk.length, 4);
  client.register("add", () => 1);
  for (const odd of [["~wse:cancel", null, "x"], ["~wse:response", 1, "x"], ["~wse:what"], ["~wse:hi"]]) last().hear(...odd);
  assert.deepEqual(last().talk.slice(4), [["~wse:ack", 6], ["~wse:ack", 8]]);
  last().hear("m");
  assert.deepEqual((await torn()).resume, { session: "s1", received: 9 });
  back(0, { ...RESUMED, ring: 8, ring_bytes: 4000 });
  await passes(1);
  assert.deepEqual(last().talk, [], "told with the hi");
  for (const count of [10, 11]) {
    last().hear("m");
    assert.deepEqual(last().talk.slice(count - 10), []);
    await passes(0.2);
    assert.deepEqual(last().talk.slice(count - 10), [["~wse:ack", count]]);
  }
});

test("numbers that cannot be are the end of the session", async () => {
  for (const count of [3, 0, -1, 1.5, "1", null]) {
    const client = await lasting();
    client.send("n", 1);
    client.send("n", 2);
    last().hear("~wse:ack", 1);
    last().hear("~wse:ack", count);
    assert.deepEqual(last().left, [1000, "wse.protocol-error"], `${count}`);
    assert.deepEqual(client.told.slice(0, 2), [["error", ErrorCode.PROTOCOL_VIOLATION], ["closed", 1000, "wse.protocol-error"]]);
  }
  for (const stamp of [null, {}, { ...WELCOME, received: 1 }, RESUMED, { ...WELCOME, session: 1 }, { ...WELCOME, received: "0" }]) {
    const client = make({ reconnect: true });
    const failed = assert.rejects(client.connect("key"), code(ErrorCode.WS_CLIENT_ERROR));
    await settled();
    last().open("wse.5.json");
    last().hear("~wse:welcome", null, stamp);
    await failed;
    assert.deepEqual(last().left, [1000, "wse.protocol-error"]);
  }
  await lasting();
  await torn();
  back(0, { ...RESUMED, session: "s2" });
  assert.deepEqual(last().left, [1000, "wse.protocol-error"]);
  for (const ms of [-1, "5", {}]) {
    await lasting();
    last().hear("add", null, "s", ms);
    assert.deepEqual(last().left, [1000, "wse.protocol-error"]);
  }
});

test("a caller that waits no longer says so, and its call is not sent again", async () => {
  const client = await lasting();
  const slow = outcome(client.call("slow", 1, { timeout: 2 }));
  const leaving = new AbortController();
  const left = outcome(client.call("left", 2, { signal: leaving.signal }));
  const done = outcome(client.call("done", 3, { signal: leaving.signal }));
  last().hear("~wse:response", "yes", "3");
  leaving.abort("enough");
  await passes(2);
  assert.deepEqual([slow, left, done], [[ErrorCode.RP_TIMEOUT], ["enough"], ["yes"]]);
  assert.deepEqual(last().talk.slice(3), [["~wse:cancel", null, "2"], ["~wse:ack", 1], ["~wse:cancel", null, "1"]]);
  await torn();
  back(0);
  assert.deepEqual(last().talk, [["done", 3, "3", 30000], ["~wse:cancel", null, "2"], ["~wse:cancel", null, "1"]]);
  await assert.rejects(client.call("never", 4, { signal: leaving.signal }), (reason) => reason === "enough");
  assert.equal(last().talk.length, 3);
  const arrived = outcome(client.call("arrived", 5, { timeout: 0.0004 }));
  last().hear("~wse:ack", 4);
  await passes(0.1);
  assert.deepEqual(arrived, [ErrorCode.RP_TIMEOUT]);
  client.call("in vain", 6, { timeout: -1 }).catch(() => {});
  client.call("for ever", 7, { timeout: Infinity }).catch(() => {});
  assert.deepEqual(last().talk.slice(3), [
    ["arrived", 5, "4", 1],
    ["~wse:cancel", null, "4"],
    ["in vain", 6, "5", 0],
    ["for ever", 7, "6"],
  ]);
});

test("a call that is given up while suspended goes with a cancel if it may have arrived, else not at all", async () => {
  const client = await lasting();
  const calling = [outcome(client.call("before", 1, { timeout: 2 }))];
  last().end();
  calling.push(outcome(client.call("meanwhile", 2, { timeout: 1 })));
  await again();
  await passes(2);
  assert.deepEqual(calling, [[ErrorCode.RP_TIMEOUT], [ErrorCode.RP_TIMEOUT]]);
  back(1);
  assert.deepEqual(last().talk, [["~wse:cancel", null, "1"]]);
});

test("a classic server hears of no cancel, and is not asked for signs of life", async () => {
  const client = await welcomed({ reconnect: true });
  const leaving = new AbortController();
  const left = outcome(client.call("slow", 1, { signal: leaving.signal }));
  leaving.abort("enough");
  client.send("cursor", 1, { keep: false });
  last().hear("~wse:ping");
  client.register("one", (_, { signal, timeLeft }) => [signal.aborted, timeLeft() ?? "no limit"]);
  last().hear("one", null, "s", "what is no deadline");
  await passes(60);
  assert.deepEqual(left, ["enough"]);
  assert.deepEqual(last().talk, [
    ["slow", 1, "~wse:call:slow:1"],
    ["cursor", 1, null],
    ["~wse:response", [false, "no limit"], "s"],
  ]);
});

test("a server that is a classic one when the client comes back begins anew", async () => {
  const client = await lasting();
  last().end();
  await passes(0.5);
  client.send("n", 1);
  last().open();
  client.send("n", 2);
  assert.deepEqual(last().said, [["~wse:hi", { identity: "key", meta: {} }, null]]);
  client.told.splice(0);
  last().hear("~wse:welcome", { n: 3 });
  client.send("n", 4);
  assert.deepEqual(client.told, [["lost", 2], ["updated", "READY"], ["ready", { n: 3 }]]);
  assert.deepEqual(last().talk, [["n", 4, null]]);
  const calling = outcome(client.call("slow", null, { timeout: 600 }));
  await passes(200);
  assert.deepEqual(calling, [], "the window of the session ends no call of the connection");
});

test("the window of one absence ends nothing later", async () => {
  const quiet = { heartbeat: 0, window: 60 };
  const client = await lasting({}, { ...WELCOME, ...quiet });
  await torn();
  back(0, { ...RESUMED, ...quiet });
  const resumed = outcome(client.call("slow", null, { timeout: 600 }));
  await passes(100);
  assert.deepEqual(resumed, []);
  last().end();
  client.close();
  client.connect("key").catch(() => {});
  await settled();
  last().open("wse.5.json");
  last().hear("~wse:welcome", null, { ...WELCOME, ...quiet, session: "s2" });
  const anew = outcome(client.call("slow", null, { timeout: 600 }));
  await passes(100);
  assert.deepEqual(anew, []);
});

test("who closed while suspended and connects again is told of the next end as of the first", async () => {
  const client = await lasting();
  last().end();
  client.close();
  client.connect("key").catch(() => {});
  await settled();
  last().open("wse.5.json");
  client.told.splice(0);
  last().end(1013, "busy");
  assert.deepEqual(client.told.slice(0, 2), [["closed", 1013, "busy"], ["updated", "OFFLINE"]]);
  client.close();
});

test("a procedure learns that its caller has gone, and how long it waits", async () => {
  const client = await lasting();
  const heard = [];
  const late = [];
  const gone = [];
  client.register("slow", (payload, { signal, timeLeft }) => {
    heard.push(timeLeft());
    late.push(timeLeft);
    signal.addEventListener("abort", () => gone.push(heard.length));
    return new Promise((resolve, reject) => {
      signal.onabort = () => (payload === "throws" ? reject(signal.reason) : resolve("too late"));
    });
  });
  last().hear("slow", null, "s1", 5000);
  last().hear("slow", "throws", "s2");
  last().hear("slow", null, "s3", 0);
  await passes(2);
  assert.deepEqual([heard, late.map((timeLeft) => timeLeft())], [[5, undefined, 0], [3, undefined, 0]]);
  last().hear("~wse:cancel", null, "s1");
  last().hear("~wse:cancel", null, "s2");
  last().hear("~wse:cancel", null, "unknown");
  await torn();
  back(0);
  last().hear("~wse:cancel", null, "s3");
  await settled();
  assert.deepEqual([gone.length, last().talk], [3, []]);
  client.register("prompt", (_, { signal }) => {
    signal.addEventListener("abort", () => gone.push("too late"));
  });
  last().hear("prompt", null, "s4");
  await settled();
  last().hear("~wse:cancel", null, "s4");
  assert.deepEqual([gone.length, last().talk], [3, [["~wse:response", null, "s4"]]]);
  assert.ok(!client.told.some(([name]) => name === "error"));
});

test("a server that says when to come back is believed to the second", async () => {
  const client = await lasting();
  last().hear("~wse:bye", { reason: "wse.server-closing", after: 7.5 });
  last().end(1012, "wse.server-closing");
  await passes(7.4);
  assert.equal(Paper.made.length, 1);
  await passes(0.1);
  assert.equal(Paper.made.length, 2);
  last().end();
  await passes(1);
  assert.equal(Paper.made.length, 3, "once");
  for (const odd of [null, {}, { after: -1 }, { after: "soon" }]) {
    await lasting();
    last().hear("~wse:bye", odd);
    assert.ok((await torn(1012)).resume);
  }
  assert.deepEqual(client.told[0], ["suspended", 1012, "wse.server-closing"]);
});

// -- signs of life

test("after silence the server is asked once, and left if it does not answer, to come back at once", async () => {
  const client = await lasting();
  await passes(24);
  last().hear("m");
  await passes(24.9);
  assert.deepEqual(last().talk, [["~wse:ack", 1]]);
  await passes(0.1);
  assert.deepEqual(last().talk.slice(1), [["~wse:ping"]]);
  await passes(9);
  last().hear("~wse:pong");
  await passes(24.9);
  assert.equal(last().talk.length, 2);
  await passes(0.1);
  assert.deepEqual(last().talk.slice(2), [["~wse:ping"]]);
  const silent = last();
  await passes(9.9);
  assert.equal(silent.left, undefined);
  await passes(0.1);
  assert.deepEqual(silent.left, [], "a code would end the session");
  assert.deepEqual(client.told, [["suspended", 1006, "wse.heartbeat-lost"], ["updated", "RE_CONNECTING"]]);
  await passes(0);
  assert.equal(Paper.made.length, 2);
  last().open("wse.5.json");
  assert.ok(last().said[0][1].resume);
});

test("a page that is visible or online again asks at once", async () => {
  await lasting();
  document.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual(last().talk, []);
  document.visibilityState = "visible";
  document.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual(last().talk, [["~wse:ping"]]);
  await passes(9);
  window.dispatchEvent(new Event("online"));
  assert.deepEqual(last().talk, [["~wse:ping"], ["~wse:ping"]]);
  const asked = last();
  await passes(9);
  assert.equal(asked.left, undefined, "it has been asked again");
  await passes(1);
  assert.deepEqual(asked.left, []);
});

test("a timer that was asleep is not believed: the server is asked, and waited for", async () => {
  const client = await lasting();
  await passes(25);
  mock.timers.tick(3600_000);
  assert.deepEqual(last().talk, [["~wse:ping"], ["~wse:ping"]]);
  await passes(9);
  last().hear("~wse:pong");
  await passes(24);
  assert.equal(client.status, Status.READY);
  await passes(11);
  assert.equal(client.status, Status.RE_CONNECTING);
  await passes(1);
  last().open("wse.5.json");
  back(0);
  await passes(25);
  mock.timers.tick(60_000);
  mock.timers.tick(60_000);
  assert.equal(client.status, Status.RE_CONNECTING, "a page whose timers are always late finds out as well");
});

test("a connection that ends leaves no timer and no listener", async () => {
  const client = await lasting();
  last().hear("m");
  assert.equal(listening, 2);
  last().end(1000);
  assert.equal(listening, 0);
  await passes(100);
  assert.deepEqual(last().talk, []);
  client.close();
  const other = await lasting({}, { ...WELCOME, heartbeat: 0 });
  await passes(100);
  assert.deepEqual([other.status, last().talk], [Status.READY, []]);
  other.close();
  assert.equal(listening, 0);
});


// -- a tab is a device

/** The locks of a browser, which it takes from a tab that is closed. */
class Locks {
  #held = new Map();
  #waiting = [];

  async request(name, { signal }, hold) {
    const one = { name, tab };
    if (this.#held.has(name)) {
      await new Promise((granted, refused) => {
        this.#waiting.push(Object.assign(one, { granted }));
        signal.addEventListener("abort", () => {
          this.#waiting = this.#waiting.filter((other) => other !== one);
          refused(signal.reason);
        });
      });
    }
    this.#held.set(name, one);
    await hold();
    this.#free(one);
  }

  unload(gone) {
    for (const one of [...this.#held.values()]) if (one.tab === gone) this.#free(one);
  }

  #free({ name }) {
    const next = this.#waiting.findIndex((one) => one.name === name);
    if (next < 0) return this.#held.delete(name);
    const [one] = this.#waiting.splice(next, 1);
    this.#held.set(name, one);
    one.granted();
  }
}

let tab;
let pages = 0;

/** A tab with what another one has stored, or with nothing. */
function makeTab(original) {
  const items = new Map(original?.items);
  return { items, getItem: (key) => items.get(key) ?? null, setItem: (key, value) => items.set(key, value) };
}

/** The page is loaded in this tab, with a module of its own; what makes its clients. */
async function load(there) {
  const module = await import(`../../src/wse/static/wse.js?${(pages += 1)}`);
  return async (drawn, client = new module.WseClient("ws://test/", { WebSocket: Paper })) => {
    globalThis.sessionStorage = tab = there;
    client.connect("key").catch(() => {});
    await passes(0.3);
    last().open("wse.5.json");
    const { device } = last().said[0][1];
    last().hear("~wse:welcome", null, { ...WELCOME, device: device ?? drawn });
    assert.equal(client.device, device ?? drawn);
    return [device, client];
  };
}

test("a tab is a device, also when its page is loaded again", async () => {
  locks = new Locks();
  const first = makeTab();
  const [before] = await (await load(first))("d1");
  const [other] = await (await load(makeTab()))("d2");
  setTimeout(() => locks.unload(first), 200); // when the page is loaded again already
  const [after] = await (await load(first))("d3");
  assert.deepEqual([before, other, after], [undefined, undefined, "d1"]);
});

test("a tab that is duplicated is another device, and stays that", async () => {
  locks = new Locks();
  const first = makeTab();
  await (await load(first))("d1");
  const copy = makeTab(first);
  const [drawn] = await (await load(copy))("d2");
  locks.unload(copy);
  const [again] = await (await load(copy))("d3");
  locks.unload(first);
  const [original] = await (await load(first))("d4");
  assert.deepEqual([drawn, again, original], [undefined, "d2", "d1"]);
});

test("the clients of one page are devices of their own, in the order in which they connect", async () => {
  locks = new Locks();
  const first = makeTab();
  const page = await load(first);
  const [, one] = await page("d1");
  const [, two] = await page("d2");
  one.close();
  assert.equal((await page("d3", one))[0], "d1");
  two.close();
  one.close();
  assert.equal((await page("d3"))[0], "d1", "who signs in after another");
  locks.unload(first);
  const reloaded = await load(first);
  const devices = [];
  for (const drawn of ["d4", "d5", "d6"]) devices.push((await reloaded(drawn))[0]);
  assert.deepEqual(devices, ["d1", "d2", undefined]);
});

test("who closes before the tab knows its name leaves the place", async () => {
  locks = new Locks();
  const first = makeTab();
  await (await load(first))("d1");
  const copy = makeTab(first);
  globalThis.sessionStorage = tab = copy;
  const hasty = make();
  hasty.connect().catch(() => {});
  await passes(0.1);
  hasty.close();
  locks.unload(first);
  await passes(1);
  assert.equal(Paper.made.length, 1);
  assert.equal((await (await load(copy))("d2"))[0], "d1");
});

test("where nothing can be stored or locked, a client is a device while its page lives", async () => {
  const forbidden = { configurable: true, get() { throw new Error("SecurityError"); } };
  const full = makeTab();
  full.setItem = () => { throw new Error("QuotaExceededError"); };
  for (const [there, locking] of [[forbidden, new Locks()], [{ configurable: true, value: makeTab() }, undefined], [{ configurable: true, value: full }, new Locks()]]) {
    locks = locking;
    Object.defineProperty(globalThis, "sessionStorage", there);
    const client = await lasting();
    assert.equal(last().said[0][1].device, undefined);
    assert.equal((await torn()).device, "d1");
    client.close();
  }
});

test("a device has the name that the application gives it", async () => {
  locks = new Locks();
  globalThis.sessionStorage = tab = makeTab();
  const client = await lasting({ device: "kiosk" }, { ...WELCOME, device: "kiosk" });
  assert.deepEqual([client.device, last().said[0][1].device, tab.items.size], ["kiosk", "kiosk", 0]);
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

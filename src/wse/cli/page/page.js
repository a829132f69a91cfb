// The page of `wse demo`: everything that it does goes through the client beside it.

import { hmac } from "./hmac.js";
import { Status, WseClient } from "./wse.js";

const HINTS = { alice: "violet umbrella", bob: "paper kite", carol: "tin whistle" };
const SENT_AWAY = {
  "wse.clients-concurrency": "This tab was sent away: another device of yours took its place.",
  "wse.by-client": "",
};
const $ = (id) => document.getElementById(id);
const make = (tag, className, ...children) => {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
};

// -- the frames, as they pass

class WatchedSocket extends WebSocket {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", ({ data }) => showFrame("in", data));
    this.addEventListener("close", ({ code, reason }) => showFrame("end", `closed ${code} ${reason}`));
  }

  send(data) {
    showFrame("out", data);
    super.send(data);
  }
}

function showFrame(way, data) {
  const arrow = { in: "← ", out: "→ ", end: "× " }[way];
  append($("frames"), make("li", way, arrow + data), 200);
}

function append(list, item, most) {
  list.append(item);
  while (list.children.length > most) list.firstChild.remove();
  list.scrollTop = list.scrollHeight;
}

// -- the client

const url = new URL("ws", location.href);
url.protocol = url.protocol.replace("http", "ws");
const client = new WseClient(url, { reconnect: true, WebSocket: WatchedSocket, backoff: { first: 1, cap: 10 } });
let me = {};
let passphrase = "";

client.challenge((quest) => hmac(passphrase, quest.nonce));
client.register("describe", () => ({
  screen: `${screen.width} × ${screen.height}`,
  "local time": new Date().toLocaleTimeString(),
}));

client.when.updated((status) => {
  $("status").dataset.state = status;
  $("state").textContent = {
    [Status.IDLE]: "not connected",
    [Status.CONNECTING]: "connecting …",
    [Status.READY]: "connected",
    [Status.OFFLINE]: "offline",
    [Status.RE_CONNECTING]: "coming back …",
  }[status];
  for (const control of $("room").querySelectorAll("button, input, select")) {
    control.disabled = status !== Status.READY && control.id !== "again" && control.id !== "sign-out";
  }
});

client.when.ready((welcome) => {
  me = welcome;
  document.title = `${me.you} · wse`;
  $("door").hidden = true;
  $("room").hidden = false;
  $("sent-away").hidden = true;
  note(`connected as ${me.you}`);
});

client.when.closed((code, reason) => {
  note(`disconnected: ${code} ${reason}`);
  if (code === 1000 && reason !== "wse.by-client" && !$("room").hidden) {
    $("sent-away").firstChild.textContent = SENT_AWAY[reason] ?? `This tab was sent away: ${reason}.`;
    $("sent-away").hidden = false;
    $("again").disabled = false;
    $("again").focus();
  }
});

// -- the door

$("name").addEventListener("change", hint);
hint();

function hint() {
  $("hint").textContent = `It is “${HINTS[$("name").value]}”, unless you want to be refused.`;
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  passphrase = $("passphrase").value;
  $("refused").hidden = true;
  try {
    await client.connect($("name").value, { name: deviceName() });
    $("text").focus();
  } catch (error) {
    const refused = error.code === "wse.not-authorized";
    $("refused").textContent = refused ? "Refused: that is not the passphrase." : `Could not connect: ${error.message}`;
    $("refused").hidden = false;
  }
});

$("again").addEventListener("click", () => client.connect(me.you, { name: deviceName() }).catch(show));
$("sign-out").addEventListener("click", () => {
  client.close();
  $("room").hidden = true;
  $("door").hidden = false;
  $("passphrase").focus();
});

function deviceName() {
  const agent = navigator.userAgent;
  const browser = /Firefox|Edg|OPR|Chrome|Safari/.exec(agent)?.[0] ?? "Browser";
  const system = /Android|iPhone|iPad|Windows|Mac OS|Linux/.exec(agent)?.[0] ?? "";
  return `${{ Edg: "Edge", OPR: "Opera" }[browser] ?? browser} ${system && `on ${system}`}`.trim();
}

// -- who is here

client.channel.on("people", (people) => {
  $("people").replaceChildren(
    ...people.map(({ who, devices }) =>
      make("li", "", make("span", "who", who), make("span", "quiet", `${devices.length} device${devices.length > 1 ? "s" : ""}${who === me.you ? ", you" : ""}`)),
    ),
  );
  const own = people.find(({ who }) => who === me.you)?.devices ?? [];
  $("devices").replaceChildren(...own.map((device, place) => deviceItem(device, place)));
  const chosen = $("to").value;
  $("to").replaceChildren(
    option("all", "everybody"),
    ...people.map(({ who }) => option(`person ${who}`, who === me.you ? "all my devices" : who)),
    ...own.map(({ id }, place) => option(`device ${id}`, `my device ${place + 1}`)),
  );
  if ([...$("to").options].some(({ value }) => value === chosen)) $("to").value = chosen;
});

function option(value, label) {
  return Object.assign(document.createElement("option"), { value, textContent: label });
}

function deviceItem({ id, name }, place) {
  const here = id === me.device;
  const item = make("li", "", make("span", "name", `${place + 1}. ${name}`));
  if (here) return item.append(make("span", "quiet", "this one")), item;
  const drop = make("button", "", "Drop");
  drop.type = "button";
  drop.setAttribute("aria-label", `Drop device ${place + 1}`);
  drop.addEventListener("click", () => client.call("drop", id).catch(show));
  item.append(drop);
  return item;
}

// -- talking

client.channel.on("said", ({ who, text, to }) => {
  const line = make("li", "", make("span", "who", who), make("span", "quiet", ` to ${to}: `), text);
  append($("messages"), line, 200);
});

function note(text) {
  append($("messages"), make("li", "event", text), 200);
}

function show(error) {
  note(`error: ${error.code ?? error.message}`);
}

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value;
  const [kind, whom] = $("to").value.split(" ");
  if (kind === "all") client.send("say-all", text);
  else if (kind === "person") client.send("say-person", { who: whom, text });
  else client.send("say-device", { device: whom, text });
  $("text").value = "";
});

$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const number = (id) => ($(id).value.trim() === "" || isNaN($(id).value) ? $(id).value : Number($(id).value));
  try {
    $("sum").className = "";
    $("sum").textContent = `= ${await client.call("add", { a: number("a"), b: number("b") })}`;
  } catch (error) {
    $("sum").className = "bad";
    $("sum").textContent = `${error.code} at ${error.details.path ?? "?"}`;
  }
});

$("ask").addEventListener("click", async () => {
  try {
    const { "you answered": answer } = await client.call("ask-me");
    $("asked").textContent = Object.entries(answer).map(([name, value]) => `${name}: ${value}`).join(", ");
  } catch (error) {
    $("asked").textContent = error.code;
  }
});

$("tear").addEventListener("click", () => client.call("tear").catch(show));

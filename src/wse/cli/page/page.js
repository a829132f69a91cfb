// The page of `wse demo`, up to its door: who signs in gets a client and a room of their own, and signing out throws
// both away. So nothing is left for the next person, also of what comes late.

import { deviceName } from "./device.js";
import { hmac } from "./hmac.js";
import { called, furnish, watched } from "./room.js";
import { Status, WseClient } from "./wse.js";

const HINTS = { alice: "violet umbrella", bob: "paper kite", carol: "tin whistle" };
const STATES = {
  [Status.IDLE]: "not connected",
  [Status.CONNECTING]: "connecting …",
  [Status.READY]: "connected",
  [Status.OFFLINE]: "offline",
  [Status.RE_CONNECTING]: "coming back …",
};
const TITLE = document.title;
const URL_OF_SERVER = new URL("ws", location.href.replace(/^http/, "ws"));
const $ = (id) => document.getElementById(id);
let current;

$("name").addEventListener("change", hint);
$("sign-in").addEventListener("submit", signIn);
hint();
show(Status.IDLE);

function hint() {
  $("hint").textContent = `It is “${HINTS[$("name").value]}”, unless you want to be refused.`;
}

function show(status) {
  $("status").dataset.state = status;
  $("state").textContent = STATES[status];
}

async function signIn(event) {
  event.preventDefault();
  const who = $("name").value;
  const passphrase = $("passphrase").value;
  const room = $("inside").content.firstElementChild.cloneNode(true);
  const client = new WseClient(URL_OF_SERVER, {
    reconnect: true,
    WebSocket: watched(room.querySelector("#frames")),
    backoff: { first: 1, cap: 10 },
  });
  current?.close(); // it was still trying
  current = client;
  client.challenge((quest) => hmac(passphrase, quest.nonce));
  client.when.updated(show);
  client.when.ready.once(() => enter(room, who));
  const connect = () => client.connect(who, { name: deviceName(navigator.userAgent) });
  furnish(room, { client, who, connect, leave: () => leave(room, client) });
  $("refused").textContent = "";
  try {
    await connect();
  } catch (error) {
    if (current === client) refuse(error);
  }
}

function refuse(error) {
  const refused = error.code === "wse.not-authorized";
  $("refused").textContent = refused ? "Refused: that is not the passphrase." : `Could not connect: ${error.message}`;
  $("passphrase").select();
}

function enter(room, who) {
  document.title = `${called(who)} · wse`;
  $("sign-in").reset();
  $("passphrase").replaceWith($("passphrase").cloneNode()); // an undo would bring back what was typed
  hint();
  $("door").hidden = true;
  $("door").after(room);
  room.querySelector("#text").focus();
}

function leave(room, client) {
  client.close();
  room.remove();
  current = undefined;
  document.title = TITLE;
  show(Status.IDLE);
  $("door").hidden = false;
  $("name").focus();
}

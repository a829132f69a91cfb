// What is behind the door, for one person: everything that happens here goes through their client.

import { Status } from "./wse.js";

const GONE = ", gone";
const MOST_LINES = 200;
const TOLD = {
  "wse.clients-concurrency": "another device of yours took its place",
  "wse.replaced": "it was opened anew",
  "wse.client.not-ready": "not connected now",
  "wse.client.outbox-full": "too much waits already until the connection is back",
  "wse.client.rp.disconnect": "the connection was lost",
  "wse.client.rp.timeout": "no answer in time",
  "not-your-device": "that device has gone",
};
export const called = (who) => who.charAt(0).toUpperCase() + who.slice(1);
const tell = ({ code, message }) => TOLD[code] ?? code ?? message;

export function furnish(room, { client, who, connect, leave }) {
  const $ = (id) => room.querySelector(`#${id}`);
  const note = (text) => append($("messages"), make("li", "event", text));
  const failed = (what) => (error) => note(`${what}: ${tell(error)}`);
  showNetwork(room, $, { client, who, connect, note, failed });
  showWhoIsHere($, { client, who, failed });
  talk($, { client, note, failed });
  offerProcedures($, client);
  $("sign-out").addEventListener("click", leave);
}

// -- the network

function showNetwork(room, $, { client, who, connect, note, failed }) {
  let kept = false; // what is said while the connection is lost
  // No control is disabled, or it would lose the focus, and what is typed meanwhile.
  const dim = () => {
    for (const button of room.querySelectorAll("button:not(#again, #sign-out)")) {
      const waits = kept && button.id !== "tear";
      button.setAttribute("aria-disabled", client.status !== Status.READY && !waits);
    }
  };
  client.when.updated(dim);
  client.when.suspended((code, reason) => {
    kept = true;
    note(`connection lost: ${code} ${reason}`);
  });
  client.when.resumed(() => note("back, and nothing is missing"));
  client.when.lost((count) => {
    kept = false;
    dim();
    note(`the session is over: ${count} of your messages perhaps did not arrive`);
  });
  client.when.ready(() => {
    if ($("sent-away").contains(document.activeElement)) $("text").focus();
    $("sent-away").hidden = true;
    note(`connected as ${called(who)}`);
  });
  client.when.closed(async (code, reason) => {
    note(`disconnected: ${code} ${reason}`);
    await null; // by then the client is coming back, if it does
    if (client.status !== Status.OFFLINE) return;
    $("why").textContent = `This tab was sent away: ${tell({ code: reason })}.`;
    $("sent-away").hidden = false;
  });
  $("again").addEventListener("click", () => {
    if (client.status === Status.OFFLINE) connect().catch(failed("could not connect"));
  });
  $("tear").addEventListener("click", () => {
    if (client.status === Status.READY) client.call("tear").catch(failed("not cut"));
    else note("not cut: not connected now");
  });
}

// -- who is here

function showWhoIsHere($, { client, who, failed }) {
  let here;
  client.when.ready(({ device }) => { here = device; });

  client.channel.on("people", (people) => {
    const own = people.find((person) => person.who === who)?.devices ?? [];
    update($("people"), people.map((person) => ({ key: person.who, ...person })), {
      create: () => make("li", "", make("span", "who"), make("span", "quiet")),
      fill: ({ children: [name, count] }, { key, devices }) => {
        say(name, called(key));
        say(count, `${devices.length} device${devices.length > 1 ? "s" : ""}${key === who ? ", you" : ""}`);
      },
    });
    const focused = $("devices").contains(document.activeElement);
    update($("devices"), own.map((device) => ({ key: `${device.id} ${device.id === here}`, ...device })), {
      create: ({ id }) => make("li", "", make("span", "name"), id === here ? make("span", "quiet", "this one") : dropper(id)),
      fill: ({ children: [label, last] }, { name }, place) => {
        say(label, `${place + 1}.\u00a0${name}`);
        if (last.type === "button") last.setAttribute("aria-label", `Drop device ${place + 1}`);
      },
    });
    if (focused && !$("devices").contains(document.activeElement)) $("devices-title").focus();
    update($("to"), receivers(people, own), {
      create: ({ key }) => Object.assign(make("option"), { value: key }),
      fill: (option, { label }) => say(option, label),
    });
  });

  function dropper(id) {
    const button = Object.assign(make("button", "", "Drop"), { type: "button" });
    button.addEventListener("click", () => client.call("drop", id).catch(failed("not dropped")));
    return button;
  }

  /** One who was chosen stays when gone: what is written to one person shall not go to everybody. */
  function receivers(people, own) {
    const present = [
      { key: "all", label: "everybody" },
      ...people.map((person) => ({ key: `person ${person.who}`, label: person.who === who ? "all my devices" : called(person.who) })),
      ...own.map(({ id }, place) => ({ key: `device ${id}`, label: `my device ${place + 1}` })),
    ];
    const [chosen] = $("to").selectedOptions;
    if (present.some(({ key }) => key === chosen.value)) return present;
    return [...present, { key: chosen.value, label: `${chosen.text.replace(GONE, "")}${GONE}` }];
  }
}

// -- talking

function talk($, { client, note, failed }) {
  client.channel.on("said", ({ who, text, to }) => {
    append($("messages"), make("li", "", make("span", "who", called(who)), make("span", "quiet", ` to ${to}: `), text));
  });
  $("say").addEventListener("submit", (event) => {
    event.preventDefault();
    const [to] = $("to").selectedOptions;
    if (to.text.endsWith(GONE)) return note(`not sent: ${to.text}`);
    const text = $("text").value;
    const [kind, whom] = to.value.split(" ");
    try {
      if (kind === "all") client.send("say-all", text);
      else if (kind === "person") client.send("say-person", { who: whom, text });
      else client.send("say-device", { device: whom, text });
      $("text").value = "";
    } catch (error) {
      failed("not sent")(error);
    }
  });
}

// -- procedures

function offerProcedures($, client) {
  client.register("describe", () => ({
    screen: `${screen.width} × ${screen.height}`,
    "local time": new Date().toLocaleTimeString(),
  }));
  $("add").addEventListener("submit", (event) => {
    event.preventDefault();
    const number = (id) => ($(id).value.trim() === "" || isNaN($(id).value) ? $(id).value : Number($(id).value));
    outcome($("sum"), async () => `= ${await client.call("add", { a: number("a"), b: number("b") })}`);
  });
  $("ask").addEventListener("click", () => {
    outcome($("asked"), async () => {
      const { "you answered": answer } = await client.call("ask-me");
      return Object.entries(answer).map(([name, value]) => `${name}: ${value}`).join(", ");
    });
  });
}

async function outcome(output, call) {
  try {
    output.textContent = await call();
    output.className = "";
  } catch (error) {
    output.textContent = tell(error) + (error.details?.path ? ` at ${error.details.path}` : "");
    output.className = "bad";
  }
}

// -- the frames, as they pass

/** A WebSocket that shows in a list what it carries. */
export function watched(list) {
  const show = (way, text) => append(list, make("li", way, text));
  return class extends WebSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => show("in", `← ${data}`));
      this.addEventListener("close", ({ code, reason }) => show("end", `× closed ${code} ${reason}`));
    }

    send(data) {
      show("out", `→ ${data}`);
      super.send(data);
    }
  };
}

// -- elements

function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Add a line, and show it unless somebody reads further up. */
function append(list, line) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 20;
  list.append(line);
  while (list.children.length > MOST_LINES) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

/** Make the children of a list these. Those that stay are the same elements: one of them may have the focus. */
function update(list, entries, { create, fill }) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let last;
  entries.forEach((entry, place) => {
    const item = old.get(entry.key) ?? create(entry);
    if (!old.delete(entry.key)) {
      item.dataset.key = entry.key;
      if (last) last.after(item);
      else list.prepend(item);
    }
    fill(item, entry, place);
    last = item;
  });
  for (const item of old.values()) item.remove();
}

// Drives wse.js for a test in Python: a command for each line of stdin, an event for each of stdout.

import { createInterface } from "node:readline";
import { WseClient, WseError } from "../../src/wse/static/wse.js";

const tell = (...event) => process.stdout.write(`${JSON.stringify(event)}\n`);

let release;
const released = new Promise((resolve) => (release = resolve));

function behave(behaviour) {
  return async () => {
    if (behaviour === null) return new Promise(() => {});
    if (behaviour.waits) await released;
    if ("returns" in behaviour) return behaviour.returns;
    const error = behaviour.raises;
    throw typeof error === "string" ? new Error(error) : new WseError(error.code, error.details);
  };
}

let client;
let number = 0;

const commands = {
  make({ url, options, solver, handles, procedures }) {
    client = new WseClient(url, options);
    if (solver !== undefined) client.challenge(() => solver.answer);
    for (const type of handles) client.channel.on(type, (payload) => tell("event", "message", type, payload));
    for (const [name, behaviour] of Object.entries(procedures)) client.register(name, behave(behaviour));
    for (const name of ["connected", "ready", "closed", "updated", "ignored", "suspended", "resumed", "lost"]) {
      client.when[name]((...what) => tell("event", name, ...what));
    }
    client.when.error((error) => tell("event", "error", error.code));
  },
  release,
  begin(method, args) {
    const begun = ++number;
    client[method](...args).then(
      (value) => tell("outcome", begun, true, value),
      (error) => tell("outcome", begun, false, { code: error.code, details: error.details }),
    );
  },
  do(method, args) {
    try {
      client[method](...args);
      tell("done");
    } catch (error) {
      tell("done", error.code ?? error.name);
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  commands[name](...args);
}
process.exit();

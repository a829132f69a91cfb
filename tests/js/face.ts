// The types of the browser client, read by TypeScript in strict mode and never run.

import { ErrorCode, Status, WseClient, WseError, wseJSON, type Protocol } from "../../src/wse/static/wse.js";

const client = new WseClient("/ws", { timeout: 10, reconnect: true, backoff: { cap: 60 }, device: "kiosk" });

interface Welcome {
  message: string;
}

export async function main(): Promise<void> {
  const welcome = await client.connect<Welcome>(async () => "token", { app: "demo" });
  const text: string = welcome.message;
  client.send("hello", { text });
  client.send("nothing");
  const sum: number = await client.call<number>("add", { a: 5, b: 3 }, { timeout: 3 });
  client.send("cursor", { x: 1 }, { keep: false });
  await client.call("add", null, { signal: AbortSignal.timeout(100) });
  client.register("double", (n: number) => n * 2);
  client.register("slow", async (url: string, { signal, timeLeft }) => {
    const seconds: number = timeLeft() ?? 10;
    return (await fetch(url, { signal })).status + seconds;
  });
  client.unregister("double");
  const handler = client.channel.on<{ n: number }>("news", ({ n }) => n + sum);
  client.channel.once("news", async (payload) => payload.n);
  client.channel.off("news", handler);
  client.channel.off("news");
  client.challenge((quest: { nonce: string }) => quest.nonce);
  client.when.ready((again: Welcome) => again.message);
  client.when.closed.once((code, reason) => code.toFixed() + reason.trim());
  client.when.suspended((code, reason) => code.toFixed() + reason.trim());
  client.when.resumed((again: Welcome) => again.message);
  client.when.lost((count) => count.toFixed());
  const device: string | undefined = client.device;
  client.when.updated((status) => status === Status.READY);
  const failed = client.when.error((error) => error.code === ErrorCode.RP_TIMEOUT);
  client.when.error.off(failed);
  const status: Status = client.status;
  await client.jump(`wss://other/${status}/${device ?? ""}`);
  client.close("see you");
}

export function codeOf(error: unknown): string {
  return error instanceof WseError ? error.code : "";
}

const lines: Protocol = {
  name: "lines",
  types: { ...wseJSON.types, hi: "HI" },
  pack: (type, payload, stamp) => `${type} ${JSON.stringify(payload)} ${String(stamp)}`,
  unpack: (data) => [String(data)],
};
new WseClient("ws://host", { protocol: lines, WebSocket });

// @ts-expect-error a type is a text
client.send(1);
// @ts-expect-error a handler takes what the event tells
client.when.closed((code: string) => code);
// @ts-expect-error the status is the client's to set
client.status = Status.READY;
// @ts-expect-error what a device is called is not the client's to change
client.device = "another";
// @ts-expect-error a signal is no controller
client.call("add", null, { signal: new AbortController() });
// @ts-expect-error no such option
new WseClient("ws://host", { timeOut: 1 });

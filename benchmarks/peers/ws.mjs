// ws, the WebSocket server of Node.js.

import { WebSocketServer } from "ws";
import { announce, news, procedures } from "./common.mjs";

const users = new Map();
const events = {
  cast({ count }) {
    for (let number = 0; number < count; number++) {
      const text = JSON.stringify(["news", news, null]);
      for (const ws of users.values()) ws.send(text);
    }
  },
};

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 2048 });
server.on("connection", ws => {
  let identity;
  ws.on("message", data => {
    const [type, payload, stamp] = JSON.parse(data);
    if (identity === undefined) {
      identity = payload.identity;
      users.set(identity, ws);
      ws.send(JSON.stringify(["~wse:welcome", null, null]));
    } else if (stamp === null) {
      events[type](payload);
    } else {
      ws.send(JSON.stringify(["~wse:response", procedures[type](payload), stamp]));
    }
  });
  ws.on("error", () => {});
  ws.on("close", () => users.delete(identity));
});
server.on("listening", () => announce(server.address().port));

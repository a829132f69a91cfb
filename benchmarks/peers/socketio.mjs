// socket.io, over WebSocket alone.

import { createServer } from "node:http";
import { Server } from "socket.io";
import { announce, news, procedures } from "./common.mjs";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });
const users = new Map();
io.on("connection", socket => {
  const { identity } = socket.handshake.auth;
  users.set(identity, socket);
  for (const [name, procedure] of Object.entries(procedures)) {
    socket.on(name, (payload, answer) => answer(procedure(payload)));
  }
  socket.on("cast", ({ count }) => {
    for (let number = 0; number < count; number++) io.emit("news", news);
  });
  socket.on("disconnect", () => users.delete(identity));
});
http.listen(0, "127.0.0.1", 2048, () => announce(http.address().port));

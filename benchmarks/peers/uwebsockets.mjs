// uWebSockets.js. The package on npm has binaries for some versions of Node.js alone, and falls
// back to JavaScript elsewhere; the binary is loaded by its name, so that nothing else is measured.

import { createRequire } from "node:module";
import { announce, news, procedures } from "./common.mjs";

const { platform, arch, versions } = process;
const uws = createRequire(import.meta.url)(
  `@trufflesuite/uws-js-unofficial/binaries/uws_${platform}_${arch}_${versions.modules}.node`,
);

const users = new Map();
const events = {
  cast({ count }) {
    for (let number = 0; number < count; number++) {
      app.publish("everybody", JSON.stringify(["news", news, null]));
    }
  },
};

const app = uws.App().ws("/*", {
  idleTimeout: 120,
  message(ws, data) {
    const [type, payload, stamp] = JSON.parse(Buffer.from(data).toString());
    const user = ws.getUserData();
    if (user.identity === undefined) {
      user.identity = payload.identity;
      users.set(user.identity, ws);
      ws.subscribe("everybody");
      ws.send(JSON.stringify(["~wse:welcome", null, null]));
    } else if (stamp === null) {
      events[type](payload);
    } else {
      ws.send(JSON.stringify(["~wse:response", procedures[type](payload), stamp]));
    }
  },
  close(ws) {
    users.delete(ws.getUserData().identity);
  },
});
app.listen("127.0.0.1", 0, socket => announce(uws.us_socket_local_port(socket)));

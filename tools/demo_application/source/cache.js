// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// A connection to Redis that comes back by itself.
"use strict";

const fs = require("node:fs");
const redis = require("redis");

/** A client that connects in the background; while it is not connected, commands fail at once. */
function connected(settings) {
  const client = redis.createClient({
    username: settings.redisUser,
    password: settings.redisPassword,
    disableOfflineQueue: true,
    socket: {
      host: settings.redisHost,
      port: settings.redisPort,
      connectTimeout: 3000,
      reconnectStrategy: (attempt) => Math.min(50 * 2 ** attempt, 1000),
      ...(settings.redisCa ? { tls: true, ca: fs.readFileSync(settings.redisCa) } : {}),
    },
  });
  let said = "";
  client.on("error", (error) => {
    const message = error.message || error.code || "no answer";
    if (message !== said) {
      console.error(`redis: ${message}`);
    }
    said = message;
  });
  client.on("ready", () => {
    said = "";
  });
  client.connect().catch(() => {});
  return client;
}

/** Close a client, whatever state it is in. */
async function close(client) {
  await (client.isReady ? client.quit() : client.disconnect()).catch(() => {});
}

module.exports = { connected, close };

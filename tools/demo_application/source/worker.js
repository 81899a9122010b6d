// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// The process `worker`: takes jobs from a list in Redis and writes down that they were done.
"use strict";

const os = require("node:os");
const { setTimeout: sleep } = require("node:timers/promises");
const cache = require("./cache");
const { Database } = require("./database");
const { crashWhereWanted, onStop } = require("./stopping");

const WAIT = 1; // seconds for a job
const BEAT = 5000; // milliseconds
const BEAT_COUNTS = 15; // seconds

const heartbeat = (prefix) => `${prefix}heartbeat:${os.hostname()}`;

async function run(settings) {
  const database = new Database(settings, 1);
  const store = cache.connected(settings);
  const waiting = cache.connected(settings); // a connection on which nothing else is asked
  const jobs = `${settings.redisPrefix}jobs`;
  const taken = `${settings.redisPrefix}taken`;
  let stopping = false;

  async function beat() {
    await store.set(heartbeat(settings.redisPrefix), settings.release, { EX: BEAT_COUNTS });
    console.log("heartbeat");
  }

  /** A job stays in the list `taken` until it is written down; doing it twice changes nothing. */
  async function work() {
    const text = await waiting.blMove(jobs, taken, "RIGHT", "LEFT", WAIT);
    if (text !== null) {
      const { id, item } = JSON.parse(text);
      await database.query("INSERT IGNORE INTO jobs (id, item, release_name) VALUES (?, ?, ?)", [
        id,
        item,
        settings.release,
      ]);
      await store.lRem(taken, 0, text);
    }
  }

  async function takeUp() {
    while ((await store.lMove(taken, jobs, "RIGHT", "RIGHT")) !== null);
  }

  async function loop() {
    let last = -Infinity;
    let whole = false;
    while (!stopping) {
      try {
        if (!whole) {
          await takeUp();
          whole = true;
        }
        if (Date.now() - last >= BEAT) {
          await beat();
          last = Date.now();
        }
        await work();
      } catch (error) {
        whole = false;
        console.error(`worker: ${error.code || error.message}`);
        await sleep(500);
      }
    }
  }

  const ended = loop();
  console.log(`release ${settings.release} works`);
  onStop(async () => {
    stopping = true;
    await ended;
    await Promise.all([database.close(), cache.close(store), cache.close(waiting)]);
  });
  crashWhereWanted(settings);
}

module.exports = { run };

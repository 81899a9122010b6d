// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// The process `web`: a shop's API, its page, and what those who run it ask.
"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { pipeline } = require("node:stream/promises");
const express = require("express");
const cache = require("./cache");
const { Database } = require("./database");
const errors = require("./errors");
const { Requests, gauge } = require("./metrics");
const session = require("./session");
const { crashWhereWanted, onStop } = require("./stopping");

const PUBLIC = path.join(__dirname, "..", "public");
const CACHED_SECONDS = 30;
const SHOWN = 100;
const READY_WITHIN = 2000; // milliseconds
const LONGEST_WAIT = 8000; // milliseconds
const LARGEST_UPLOAD = 10 * 1024 ** 2;
const SUFFIXES = new Set([".jpg", ".pdf", ".png", ".txt"]);

const STARTED = new Date(Date.now() - process.uptime() * 1000).toISOString();

/** "ok", or why it is not; never later than in `milliseconds`. */
async function state(question, milliseconds = READY_WITHIN) {
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in time")), milliseconds);
  });
  try {
    await Promise.race([question(), late]);
    return "ok";
  } catch (error) {
    return error.code || error.message || "no answer";
  } finally {
    clearTimeout(timer);
  }
}

/** A handler whose failure becomes an answer. */
const answering = (handler) => (request, response, next) => handler(request, response, next).catch(next);

function problemOf({ name, price_cents: price } = {}) {
  if (typeof name !== "string" || name.length < 1 || name.length > 200) {
    return "name is to be a text of up to 200 characters";
  }
  return Number.isInteger(price) && price >= 0 ? "" : "price_cents is to be a whole number";
}

/** The application; `parts` are the database, Redis and whether it stops. */
function application(settings, parts) {
  const { database, store } = parts;
  const requests = new Requests();
  const key = (name) => `${settings.redisPrefix}${name}`;
  const app = express();
  app.disable("x-powered-by");
  app.set("trust proxy", "loopback, linklocal, uniquelocal");

  app.use((request, response, next) => {
    const began = process.hrtime.bigint();
    response.on("finish", () => {
      // The route as it was declared: paths are as many as visitors make up.
      const route = request.route?.path ?? "";
      requests.note(request.method, route, response.statusCode, Number(process.hrtime.bigint() - began) / 1e9);
    });
    if (parts.stopping) {
      response.set("Connection", "close");
    }
    next();
  });

  // --- for those who run it

  app.get("/health", (_request, response) => response.json({ status: "ok" }));

  app.get("/version", (_request, response) => response.json({ release: settings.release, started: STARTED }));

  app.get(
    "/ready",
    answering(async (_request, response) => {
      const [inDatabase, inRedis] = await Promise.all([
        state(() => database.query("SELECT 1")),
        state(() => store.ping()),
      ]);
      const ready = inDatabase === "ok" && inRedis === "ok" && !parts.stopping && settings.behaviour !== "never_ready";
      response.status(ready ? 200 : 503).json({ database: inDatabase, redis: inRedis });
    }),
  );

  app.get("/metrics", (_request, response) => {
    const { limit, ...connections } = database.figures();
    const lines = [
      ...requests.lines(),
      ...gauge("shop_pool_limit", "Connections to the database that this process opens at most.", [[{}, limit]]),
      ...gauge(
        "shop_pool_connections",
        "Connections to the database, and who waits for one.",
        Object.entries(connections).map(([name, count]) => [{ state: name }, count]),
      ),
      ...gauge("shop_redis_up", "Whether Redis is connected.", [[{}, store.isReady ? 1 : 0]]),
      ...gauge("shop_release_info", "The release.", [[{ release: settings.release }, 1]]),
      ...gauge("process_start_time_seconds", "When the process has started.", [[{}, Date.parse(STARTED) / 1000]]),
    ];
    response.type("text/plain; version=0.0.4").send(`${lines.join("\n")}\n`);
  });

  // --- the shop

  app.use(
    "/api",
    answering(async (request, response, next) => {
      if (settings.rateLimit > 0) {
        const minute = Math.floor(Date.now() / 60000);
        const counter = key(`rate:${request.ip}:${minute}`);
        // Without Redis nobody is turned away.
        const count = await store.incr(counter).catch(() => 0);
        if (count === 1) {
          await store.expire(counter, 120).catch(() => {});
        }
        if (count > settings.rateLimit) {
          response.status(429).set("Retry-After", "60").json({ error: "too many requests" });
          return;
        }
      }
      next();
    }),
  );

  app.get(
    "/api/items",
    answering(async (_request, response) => {
      const cached = await store.get(key("items")).catch(() => null);
      if (cached !== null) {
        response.set("X-Cache", "hit").type("json").send(cached);
        return;
      }
      const rows = await database.query("SELECT id, name, price_cents FROM items ORDER BY id DESC LIMIT ?", [SHOWN]);
      const text = JSON.stringify(rows);
      await store.set(key("items"), text, { EX: CACHED_SECONDS }).catch(() => {});
      response.set("X-Cache", "miss").type("json").send(text);
    }),
  );

  app.post(
    "/api/items",
    express.json(),
    answering(async (request, response) => {
      const problem = problemOf(request.body);
      if (problem) {
        response.status(422).json({ error: problem });
        return;
      }
      const { name, price_cents: price } = request.body;
      const { insertId: id } = await database.query("INSERT INTO items (name, price_cents) VALUES (?, ?)", [name, price]);
      await store.del(key("items")).catch(() => {});
      const job = JSON.stringify({ id: randomBytes(16).toString("hex"), item: id });
      const queued = await store.lPush(key("jobs"), job).then(
        () => true,
        () => false,
      );
      response.status(201).json({ id, queued });
    }),
  );

  // An answer that takes its time, to see that a stop lets it end.
  app.get("/api/slow", (request, response) => {
    const wait = Math.min(Number(request.query.milliseconds) || 1000, LONGEST_WAIT);
    setTimeout(() => response.json({ waited: wait }), wait);
  });

  // What nobody foresaw, to see that somebody is told.
  app.get("/api/failure", (_request, _response, next) => next(new Error("a failure that was asked for")));

  app.get("/api/session", (request, response) => {
    const cookie = session.cookieOf(request.headers.cookie, "session");
    const secrets = [settings.sessionSecret, settings.sessionFormerSecret];
    response.json({ session: cookie === "" ? "none" : session.holds(cookie, secrets) ? "valid" : "invalid" });
  });

  app.post(
    "/api/uploads",
    answering(async (request, response) => {
      const suffix = path.extname(String(request.query.name ?? "")).toLowerCase();
      if (!SUFFIXES.has(suffix)) {
        response.status(415).json({ error: `name is to end with ${[...SUFFIXES].join(", ")}` });
        return;
      }
      if (!(Number(request.headers["content-length"]) <= LARGEST_UPLOAD)) {
        response.status(413).json({ error: `the body is to have a length of up to ${LARGEST_UPLOAD} bytes` });
        return;
      }
      const name = `${randomBytes(16).toString("hex")}${suffix}`;
      const place = path.join(settings.uploads, name);
      try {
        await pipeline(request, fs.createWriteStream(`${place}.part`, { flags: "wx" }));
        await fs.promises.rename(`${place}.part`, place);
      } catch (error) {
        await fs.promises.rm(`${place}.part`, { force: true });
        throw error;
      }
      response.status(201).json({ name });
    }),
  );

  const uploads = express.static(settings.uploads, { index: false, redirect: false });
  app.use("/uploads", (request, response, next) => {
    if (request.path.endsWith(".part")) {
      next();
      return;
    }
    response.set("X-Content-Type-Options", "nosniff");
    uploads(request, response, next);
  });

  app.get("/", (request, response, next) => {
    if (settings.behaviour === "broken_page") {
      response.status(500).json({ error: "broken, as it was built to be" });
      return;
    }
    response.set("X-Release", settings.release);
    const cookie = session.cookieOf(request.headers.cookie, "session");
    if (!session.holds(cookie, [settings.sessionSecret])) {
      response.cookie("session", session.begun(settings.sessionSecret), { httpOnly: true, sameSite: "lax", secure: true });
    }
    next();
  });
  app.use(express.static(PUBLIC));

  app.use((_request, response) => response.status(404).json({ error: "not found" }));
  app.use((error, request, response, _next) => {
    const status = error.status ?? 500;
    if (status >= 500) {
      console.error(`${request.method} ${request.path}: ${error.code ?? error.message}`);
      errors.report(settings, error, { method: request.method, url: request.path });
    }
    if (response.headersSent) {
      response.destroy();
      return;
    }
    response.status(status).json({ error: status >= 500 ? "it failed" : error.message });
  });
  return app;
}

async function run(settings) {
  const parts = { database: new Database(settings), store: cache.connected(settings), stopping: false };
  const server = application(settings, parts).listen(settings.port);
  await new Promise((resolve, reject) => server.once("listening", resolve).once("error", reject));
  // Longer than a proxy keeps its idle connections: it is the one to close them.
  server.keepAliveTimeout = 75000;
  console.log(`release ${settings.release} listens on port ${settings.port}`);
  onStop(async () => {
    parts.stopping = true;
    // A connection that is kept alive would hold up the end after its last answer.
    const idle = setInterval(() => server.closeIdleConnections(), 50);
    await new Promise((resolve) => server.close(resolve));
    clearInterval(idle);
    await parts.database.close();
    await cache.close(parts.store);
  });
  crashWhereWanted(settings);
}

module.exports = { application, run, state };

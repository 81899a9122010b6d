// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// Exceptions, sent to an error tracker that speaks Sentry's protocol (https://develop.sentry.dev/sdk/envelopes/).
"use strict";

const { randomBytes } = require("node:crypto");
const os = require("node:os");

const SECONDS = 5; // a tracker that is slow holds up nobody
const FRAME = /^ {4}at (?:(.*?) \()?(.*?):(\d+):(\d+)\)?$/;

/** The frames of a stack, the outermost first, as the protocol wants them. */
function frames(stack) {
  return String(stack ?? "")
    .split("\n")
    .map((line) => FRAME.exec(line))
    .filter((found) => found !== null)
    .map(([, name, filename, line, column]) => ({
      function: name ?? "?",
      filename,
      lineno: Number(line),
      colno: Number(column),
      in_app: !/node_modules|nodejs|node:/.test(filename),
    }))
    .reverse();
}

function event(settings, error, request) {
  return {
    event_id: randomBytes(16).toString("hex"),
    timestamp: Date.now() / 1000,
    platform: "node",
    level: "error",
    server_name: os.hostname(),
    release: settings.sentryRelease || settings.release,
    environment: settings.sentryEnvironment || "production",
    request,
    exception: { values: [{ type: error.name, value: error.message, stacktrace: { frames: frames(error.stack) } }] },
  };
}

/** Send an exception where a DSN says; never fails, and nobody has to wait for it. */
function report(settings, error, request) {
  if (!settings.sentryDsn) {
    return Promise.resolve();
  }
  const dsn = new URL(settings.sentryDsn);
  const wanted = event(settings, error, request);
  const address = `${dsn.protocol}//${dsn.host}/api${dsn.pathname}/envelope/`;
  const head = { event_id: wanted.event_id, dsn: settings.sentryDsn, sent_at: new Date().toISOString() };
  return fetch(address, {
    method: "POST",
    signal: AbortSignal.timeout(SECONDS * 1000),
    headers: {
      "Content-Type": "application/x-sentry-envelope",
      "X-Sentry-Auth": `Sentry sentry_version=7, sentry_client=shop/1, sentry_key=${dsn.username}`,
    },
    body: [head, { type: "event" }, wanted].map((one) => JSON.stringify(one)).join("\n"),
  }).then(
    (answer) => answer.ok || console.error(`the error tracker said ${answer.status}`),
    (reason) => console.error(`the error tracker does not answer: ${reason.cause?.code ?? reason.message}`),
  );
}

module.exports = { event, frames, report };

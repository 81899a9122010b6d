// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// A cookie that says who it is, signed; during a change of the secret both count.
"use strict";

const { createHmac, randomBytes, timingSafeEqual } = require("node:crypto");

const signature = (name, secret) => createHmac("sha256", secret).update(name).digest();

/** A new session as the cookie has it. */
function begun(secret) {
  const name = randomBytes(16).toString("hex");
  return `${name}.${signature(name, secret).toString("hex")}`;
}

/** Whether one of the secrets signed it. */
function holds(cookie, secrets) {
  const [name, signed = ""] = cookie.split(".");
  const given = Buffer.from(signed, "hex");
  return secrets
    .filter(Boolean)
    .map((secret) => signature(name, secret))
    .some((wanted) => given.length === wanted.length && timingSafeEqual(given, wanted));
}

/** The value of a cookie in a request's header; "" where there is none. */
function cookieOf(header, name) {
  const pairs = (header ?? "").split(";").map((pair) => pair.trim().split("="));
  return pairs.find(([key]) => key === name)?.[1] ?? "";
}

module.exports = { begun, cookieOf, holds };

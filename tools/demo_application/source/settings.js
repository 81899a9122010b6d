// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// What the environment says.
"use strict";

// name: [property, default]; one without a default has to be set.
const COMMON = { RELEASE: ["release", "none"], BEHAVIOUR: ["behaviour", "good"] };
const DATABASE = {
  DATABASE_HOST: ["databaseHost"],
  DATABASE_PORT: ["databasePort", 3306],
  DATABASE_NAME: ["databaseName"],
  DATABASE_USER: ["databaseUser"],
  DATABASE_PASSWORD: ["databasePassword"],
  DATABASE_POOL: ["databasePool", 10],
  DATABASE_CA: ["databaseCa", ""],
};
const REDIS = {
  REDIS_HOST: ["redisHost"],
  REDIS_PORT: ["redisPort", 6379],
  REDIS_USER: ["redisUser"],
  REDIS_PASSWORD: ["redisPassword"],
  REDIS_CA: ["redisCa", ""],
  REDIS_PREFIX: ["redisPrefix", "shop:"],
};
const WEB = {
  PORT: ["port", 3000],
  SESSION_SECRET: ["sessionSecret"],
  SESSION_FORMER_SECRET: ["sessionFormerSecret", ""],
  UPLOADS: ["uploads"],
  RATE_LIMIT: ["rateLimit", 0],
  SENTRY_DSN: ["sentryDsn", ""],
  SENTRY_RELEASE: ["sentryRelease", ""],
  SENTRY_ENVIRONMENT: ["sentryEnvironment", ""],
};
const NEEDED = {
  web: { ...COMMON, ...DATABASE, ...REDIS, ...WEB },
  worker: { ...COMMON, ...DATABASE, ...REDIS },
  report: { ...COMMON, ...DATABASE },
  migrate: { ...COMMON, ...DATABASE },
  probe: { ...COMMON, PORT: WEB.PORT },
};

/** The settings of a process, and a sentence for each that cannot be. */
function read(name, environment) {
  const wanted = {};
  const problems = [];
  for (const [variable, [property, otherwise]] of Object.entries(NEEDED[name])) {
    const text = environment[variable] ?? "";
    if (text === "" && otherwise === undefined) {
      problems.push(`${variable} is not set.`);
    } else if (typeof otherwise === "number" && !/^\d{0,9}$/.test(text)) {
      problems.push(`${variable} is no whole number.`);
    } else {
      wanted[property] = text === "" ? otherwise : typeof otherwise === "number" ? Number(text) : text;
    }
  }
  return [wanted, problems];
}

module.exports = { read };

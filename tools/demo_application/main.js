// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// One image, several processes: `main.js web`, `worker`, `report`, `migrate`, `probe`.
"use strict";

const settings = require("./source/settings");

const PROCESSES = {
  web: () => require("./source/web"),
  worker: () => require("./source/worker"),
  report: () => require("./source/report"),
  migrate: () => require("./source/migrate"),
  probe: () => require("./source/probe"),
};

async function main([name = "", ...words]) {
  if (!Object.hasOwn(PROCESSES, name)) {
    throw new Error(`There is no process "${name}"; there are ${Object.keys(PROCESSES).join(", ")}.`);
  }
  const [wanted, problems] = settings.read(name, process.env);
  if (problems.length > 0) {
    throw new Error(problems.join(" "));
  }
  await PROCESSES[name]().run(wanted, words);
}

// A process with the id 1 ends by a signal only where it says so; `web` and `worker` take a gentler way.
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => process.listenerCount(signal) === 0 && process.exit(143));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});

// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// The process `migrate`: applies the SQL files that the database has not seen, in their order, and ends.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { Database } = require("./database");

const FOLDER = path.join(__dirname, "..", "migrations");
const LOCK_SECONDS = 30;

/** The statements of a file: each ends with a semicolon at the end of a line. */
function statements(text) {
  const bare = text.replace(/^--.*$/gm, "");
  return bare
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter(Boolean);
}

/** The files of a release as [name, path]. */
function files(behaviour) {
  const folders = behaviour === "broken_migration" ? [FOLDER, path.join(FOLDER, "broken")] : [FOLDER];
  const found = folders.flatMap((folder) =>
    fs
      .readdirSync(folder)
      .filter((name) => name.endsWith(".sql"))
      .map((name) => [name, path.join(folder, name)]),
  );
  return found.sort(([one], [other]) => (one < other ? -1 : 1));
}

async function run(settings) {
  const database = new Database(settings, 1); // one connection, so that the lock is that of all statements
  try {
    const [{ locked }] = await database.query("SELECT GET_LOCK('shop.migrations', ?) AS locked", [LOCK_SECONDS], 60000);
    if (locked !== 1) {
      throw new Error(`Another migration has been running for ${LOCK_SECONDS} seconds.`);
    }
    await database.query(
      "CREATE TABLE IF NOT EXISTS migrations (" +
        "name VARCHAR(100) PRIMARY KEY, applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    );
    const known = new Set((await database.query("SELECT name FROM migrations")).map((row) => row.name));
    const wanted = files(settings.behaviour).filter(([name]) => !known.has(name));
    for (const [name, place] of wanted) {
      try {
        for (const statement of statements(fs.readFileSync(place, "utf8"))) {
          await database.query(statement, [], 600000);
        }
      } catch (error) {
        throw new Error(`${name} failed: ${error.sqlMessage ?? error.message}`);
      }
      await database.query("INSERT INTO migrations (name) VALUES (?)", [name]);
      console.log(`applied ${name}`);
    }
    console.log(wanted.length === 0 ? "nothing to apply" : `applied ${wanted.length}`);
  } finally {
    await database.close();
  }
}

module.exports = { files, run, statements };

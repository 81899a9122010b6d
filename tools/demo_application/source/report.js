// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// The process `report`: writes one row and ends; started by a timer.
"use strict";

const { Database } = require("./database");

async function run(settings) {
  const database = new Database(settings, 1);
  try {
    await database.query("INSERT INTO reports (items, release_name) SELECT COUNT(*), ? FROM items", [settings.release]);
  } finally {
    await database.close();
  }
  console.log("reported");
}

module.exports = { run };

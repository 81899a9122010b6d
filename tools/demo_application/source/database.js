// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// A pool of connections to the database, with promises.
"use strict";

const fs = require("node:fs");
const mysql = require("mysql");

function options(settings) {
  return {
    host: settings.databaseHost,
    port: settings.databasePort,
    database: settings.databaseName,
    user: settings.databaseUser,
    password: settings.databasePassword,
    charset: "utf8mb4",
    connectTimeout: 3000,
    ssl: settings.databaseCa ? { ca: fs.readFileSync(settings.databaseCa) } : undefined,
  };
}

class Database {
  constructor(settings, limit = settings.databasePool) {
    this.limit = limit;
    // A connection that the server has closed is noticed when it is taken, and another one opened.
    this.pool = mysql.createPool({ ...options(settings), connectionLimit: limit, acquireTimeout: 3000 });
  }

  query(sql, values = [], milliseconds = 10000) {
    return new Promise((resolve, reject) => {
      this.pool.query({ sql, values, timeout: milliseconds }, (error, rows) => (error ? reject(error) : resolve(rows)));
    });
  }

  /** What the pool holds. mysql has no public words for it. */
  figures() {
    const free = this.pool._freeConnections.length;
    return {
      limit: this.limit,
      free,
      used: this.pool._allConnections.length - free,
      waiting: this.pool._connectionQueue.length,
    };
  }

  close() {
    return new Promise((resolve) => this.pool.end(resolve));
  }
}

module.exports = { Database };

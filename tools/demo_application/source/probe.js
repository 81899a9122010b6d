// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// The process `probe`: is the process in this container ready? The image has no other program that could ask.
"use strict";

const WITHIN = 5000; // milliseconds

async function run(settings) {
  const answer = await fetch(`http://127.0.0.1:${settings.port}/ready`, { signal: AbortSignal.timeout(WITHIN) });
  console.log(await answer.text());
  process.exit(answer.ok ? 0 : 1);
}

module.exports = { run };

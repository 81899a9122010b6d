// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// How a process that runs for long comes to its end.
"use strict";

const LONGEST = 10000; // milliseconds

/** Call `tidy` once when the process is told to stop, and end with 0 when it has; with 1 where that takes too long. */
function onStop(tidy) {
  let stopping = false;
  const stop = () => {
    if (stopping) {
      return;
    }
    stopping = true;
    console.log("stopping");
    setTimeout(() => {
      console.error("It did not stop in time.");
      process.exit(1);
    }, LONGEST).unref();
    tidy().then(
      () => {
        console.log("stopped");
        process.exit(0);
      },
      (error) => {
        console.error(error.message);
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

/** The behaviour "crashes": the process ends by itself a moment after its start. */
function crashWhereWanted(settings) {
  if (settings.behaviour === "crashes") {
    setTimeout(() => {
      console.error("It crashes, as it was built to.");
      process.exit(1);
    }, 500);
  }
}

module.exports = { crashWhereWanted, onStop };

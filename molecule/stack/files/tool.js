// Says what it may do and what it was told.
const http = require("node:http");
const fs = require("node:fs");
const { NAME, LIST, NESTED, PER_PROCESS } = process.env;

function written(path) {
  try {
    fs.writeFileSync(path, "x");
    return "written";
  } catch (error) {
    return error.code;
  }
}

http
  .createServer((request, response) => {
    if (request.url.startsWith("/write")) {
      response.end(written(request.url.slice("/write".length)));
      return;
    }
    response.statusCode = request.url === "/busy" ? 202 : 200;
    response.end(JSON.stringify({ NAME, LIST, NESTED, PER_PROCESS, status: fs.readFileSync("/proc/self/status", "utf8") }));
  })
  .listen(4000);
process.on("SIGTERM", () => process.exit(0));

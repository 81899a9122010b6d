// Runs MDN's HTTP Observatory over one site. Standard output: {"score", "grade", "algorithm", "tests": {name: {result,
// pass, modifier}}}. Arguments: the scanner's folder, the site's name, and where its ports are on this machine, as
// 80=127.0.0.1:18080,443=127.0.0.1:18443.
//
// The scanner is as published but for two things. It looks up names itself and knows only ports 80 and 443, so
// connections to the site are led to where it really is; one to any other place fails, and nothing leaves this
// machine. The list of preloaded HSTS hosts, which its installer downloads, is an empty one (see the test).

import { readFileSync } from "node:fs";
import net from "node:net";
import { pathToFileURL } from "node:url";

const [folder, name, places] = process.argv.slice(2);
const way = new Map(places.split(",").map((pair) => pair.split("=")));

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...words) {
  // net.connect hands its own words on as one list, of which it keeps more than the words.
  const list = Array.isArray(words[0]) ? words[0] : words;
  const { host, port } = list[0];
  const place = host === name ? way.get(String(port)) : undefined;
  if (!place) throw new Error(`the scan wanted to connect to ${host}:${port}`);
  const at = place.lastIndexOf(":");
  list[0] = { ...list[0], host: place.slice(0, at), port: Number(place.slice(at + 1)) };
  return connect.apply(this, words);
};

const { version } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
const { scan } = await import(pathToFileURL(`${folder}/src/scanner/index.js`));
const result = await scan(name);
const tests = Object.entries(result.tests).map(([test, { result, pass, scoreModifier }]) => [
  test,
  { result, pass, modifier: scoreModifier },
]);
const { score, grade, algorithmVersion } = result.scan;
console.log(JSON.stringify({ version, algorithm: algorithmVersion, score, grade, tests: Object.fromEntries(tests) }));

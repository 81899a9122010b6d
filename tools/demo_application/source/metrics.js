// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// Figures in the text format of Prometheus.
"use strict";

const BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

const escaped = (value) => String(value).replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");

/** name{label="value"} number */
function line(name, labels, value) {
  const shown = Object.entries(labels).map(([key, one]) => `${key}="${escaped(one)}"`);
  return `${name}${shown.length ? `{${shown.join(",")}}` : ""} ${value}`;
}

class Requests {
  constructor() {
    this.counts = new Map();
    this.buckets = BOUNDS.map(() => 0);
    this.count = 0;
    this.sum = 0;
  }

  /** Note one request that was answered. */
  note(method, route, status, seconds) {
    const key = JSON.stringify({ method, route, status });
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    BOUNDS.forEach((bound, number) => {
      this.buckets[number] += seconds <= bound ? 1 : 0;
    });
    this.count += 1;
    this.sum += seconds;
  }

  lines() {
    return [
      "# HELP http_requests_total Requests that were answered.",
      "# TYPE http_requests_total counter",
      ...[...this.counts].map(([key, count]) => line("http_requests_total", JSON.parse(key), count)),
      "# HELP http_request_duration_seconds How long answers took.",
      "# TYPE http_request_duration_seconds histogram",
      ...BOUNDS.map((bound, number) => line("http_request_duration_seconds_bucket", { le: bound }, this.buckets[number])),
      line("http_request_duration_seconds_bucket", { le: "+Inf" }, this.count),
      line("http_request_duration_seconds_sum", {}, this.sum),
      line("http_request_duration_seconds_count", {}, this.count),
    ];
  }
}

/** A gauge with one line for each of [[labels, value], ...]. */
function gauge(name, help, values) {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} gauge`, ...values.map(([labels, value]) => line(name, labels, value))];
}

module.exports = { BOUNDS, Requests, gauge, line };

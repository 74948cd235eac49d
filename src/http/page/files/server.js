// The view Server: the models and their states, and charts of the load drawn from the server's own metrics.

import { ask, sentence } from "/page/api.js";
import { barChart, lineChart } from "/page/chart.js";
import { byId, el, setOptions } from "/page/dom.js";
import { between, buckets, parse, quantile, total } from "/page/metrics.js";

const INTERVAL_MS = 2000;
/** How far back the charts go, and over how much a quantile is taken, in seconds. */
const SPAN = 300;
const QUANTILE_SPAN = 10;

const LATENCY = "convoy_request_seconds";
const BATCHES = "convoy_batch_size";

let state;
let isReading = false;
/** The readings of the last minutes: when, and what. */
const readings = [];
const charts = {
  throughput: lineChart("Throughput", "requests/s", ["answered", "refused"]),
  latency: lineChart("Latency", "ms", ["p50", "p95", "p99"]),
  queue: lineChart("Rows in the server", "", ["waiting", "admitted"]),
  batches: barChart("Batches by size", ""),
};

export function startServer(shared) {
  state = shared;
  byId("charts").replaceChildren(...Object.values(charts).map(({ figure }) => figure));
  byId("chart-model").addEventListener("change", draw);
  state.events.addEventListener("shown", tick);
  state.events.addEventListener("models", showModels);
  setInterval(tick, INTERVAL_MS);
  draw();
}

/** Reads again, while somebody looks. */
function tick() {
  if (state.view === "server" && !document.hidden && !isReading) read();
}

function showModels() {
  const { models } = state;
  const rows = models.map((it) => {
    // What was so when the server last answered need not be so now.
    const condition = state.answers ? it.state.toLowerCase() : "not known";
    const size = it.input_size;
    const runs = it.members ? `members: ${it.members.join(", ")}` : it.provider ?? "–";
    return el(
      "tr",
      {},
      el("th", { scope: "row", textContent: it.name }),
      el("td", {},
        el("span", { className: `state ${condition}`, textContent: condition }),
        it.reason ? el("div", { className: "quiet", textContent: it.reason }) : null),
      el("td", { textContent: it.versions.join(", ") || "–" }),
      el("td", { className: "nowrap", textContent: timeOf(it) }),
      el("td", { className: "number", textContent: it.classes ?? "–" }),
      el("td", { className: "nowrap", textContent: size ? `${size.width} × ${size.height}` : "–" }),
      el("td", { textContent: runs }),
    );
  });
  byId("models").tBodies[0].replaceChildren(...rows);
  setOptions(byId("chart-model"), [["", "all models"], ...models.map((it) => [it.name, it.name])]);
}

/** When the newest version was loaded. */
function timeOf({ versions, loaded_ms: loaded }) {
  const time = loaded?.[versions.at(-1)];
  return time ? new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "–";
}

async function read() {
  const status = byId("metrics-status");
  isReading = true;
  try {
    const text = await ask("/metrics", (answer) => answer.text());
    const time = performance.now() / 1000;
    readings.push({ time, series: parse(text) });
    while (readings[0].time < time - SPAN - QUANTILE_SPAN) readings.shift();
    if (status.textContent) status.textContent = "";
    status.className = "quiet";
    draw();
  } catch (error) {
    status.className = "error";
    const text = `The charts stand still: ${sentence(error)}`;
    if (status.textContent !== text) status.textContent = text;
  }
  isReading = false;
}

/** What was counted between two readings, a second. A counter that began anew counts from 0. */
function rate(before, after, name, where) {
  const model = byId("chart-model").value;
  const now = total(after.series, name, model, where);
  const then = total(before.series, name, model, where);
  return (now >= then ? now - then : now) / (after.time - before.time);
}

function draw() {
  const model = byId("chart-model").value;
  const last = readings.at(-1);
  const shown = readings.filter((it) => it.time >= (last?.time ?? 0) - SPAN);
  const points = (values) => shown.map((it) => ({ time: it.time, values: values(it, readings.indexOf(it)) }));
  charts.throughput.draw(points((it, index) => {
    if (!index) return [null, null];
    const of = (outcome) => rate(readings[index - 1], it, "convoy_requests_total", (labels) => labels.outcome === outcome);
    return [of("success"), of("rejected")];
  }), SPAN);
  charts.latency.draw(points((it, index) => {
    const start = readings.find((other) => other.time >= it.time - QUANTILE_SPAN);
    if (!index || start === it) return [null, null, null];
    const came = between(buckets(start.series, LATENCY, model), buckets(it.series, LATENCY, model));
    return [0.5, 0.95, 0.99].map((share) => {
      const seconds = quantile(came, share);
      return seconds === null ? null : 1000 * seconds;
    });
  }), SPAN);
  charts.queue.draw(points((it) => [
    total(it.series, "convoy_queue_depth", model),
    total(it.series, "convoy_in_flight", model),
  ]), SPAN);
  charts.batches.draw(batchBars(shown, model));
}

/** How many batches of each size there were between the first reading that is shown and the last. */
function batchBars([first, ...later], model) {
  const last = later.at(-1);
  if (!last) return [];
  let less = 0;
  let from = 1;
  const bars = between(buckets(first.series, BATCHES, model), buckets(last.series, BATCHES, model)).map(([bound, value]) => {
    const name = bound === Infinity ? `${from}+` : from === bound ? `${bound}` : `${from}–${bound}`;
    const bar = [name, value - less];
    less = value;
    from = bound + 1;
    return bar;
  });
  // Sizes beyond the largest that there was would only be room without bars.
  const largest = bars.findLastIndex(([, value]) => value > 0);
  return bars.slice(0, Math.max(largest + 1, 4));
}

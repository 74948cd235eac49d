// Prometheus' text format, and what Prometheus would make of it: rates and quantiles between two readings.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Reads the text into a list of `{name, labels, value}`. */
export function parse(text) {
  const series = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
    }
    series.push({ name: found[1], labels, value: Number(found[3]) });
  }
  return series;
}

/** The series of a name, those of one model where one is given. */
const of = (series, name, model) => series.filter((it) => it.name === name && (!model || it.labels.model === model));

/** The sum of the series of a name, `where` holds. */
export const total = (series, name, model, where = () => true) =>
  of(series, name, model).filter((it) => where(it.labels)).reduce((sum, it) => sum + it.value, 0);

/** A histogram's buckets: pairs of an upper bound and how many are not above it, ascending. */
export function buckets(series, name, model) {
  const counts = new Map();
  for (const { labels, value } of of(series, `${name}_bucket`, model)) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].sort(([one], [other]) => one - other);
}

/** What has come between two readings of the same buckets; counters that began anew count from 0. */
export function between(before, after) {
  const then = new Map(before);
  const began = after.some(([bound, value]) => value < (then.get(bound) ?? 0));
  return after.map(([bound, value]) => [bound, value - (began ? 0 : then.get(bound) ?? 0)]);
}

/** A quantile of buckets, evenly spread within each, as `histogram_quantile` has it; `null` where there is nothing. */
export function quantile(cumulative, share) {
  const all = cumulative.at(-1)?.[1] ?? 0;
  if (!(all > 0)) return null;
  const rank = share * all;
  const index = cumulative.findIndex(([, value]) => value >= rank);
  const [low, less] = index > 0 ? cumulative[index - 1] : [0, 0];
  const [high, value] = cumulative[index];
  if (high === Infinity) return low;
  return low + ((high - low) * (rank - less)) / (value - less);
}

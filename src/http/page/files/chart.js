// Two small charts in SVG: lines over time, and bars. Both say what they show in words too.

import { el, svg } from "/page/dom.js";
import { number } from "/page/format.js";

const WIDTH = 260;
const HEIGHT = 140;
const LEFT = 38;
const BOTTOM = 18;
const TOP = 6;

/** 1, 2 or 5 times a power of ten that is not below `value`. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((it) => it * power).find((it) => it >= value * 0.999);
}

/** A figure with a heading, the present values and a place for the drawing. */
function frame(title, unit) {
  const values = el("span", {});
  values.style.display = "contents";
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const figure = el("figure", { className: "chart" }, el("figcaption", {}, el("h3", {}, title, unit ? el("span", { className: "quiet", textContent: `, ${unit}` }) : null), values), drawing);
  return { figure, values, drawing };
}

function grid(drawing, top) {
  const lines = [0, 0.5, 1].map((share) => {
    const y = HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
    const text = svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" });
    text.textContent = number(top * share);
    return [svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y, y2: y }), text];
  });
  drawing.replaceChildren(...lines.flat());
}

/** A chart of lines, one for each of `names`. */
export function lineChart(title, unit, names) {
  const { figure, values, drawing } = frame(title, unit);
  const draw = (points, span) => {
    const now = points.at(-1)?.time ?? 0;
    const top = ceiling(Math.max(0, ...points.flatMap((it) => it.values.filter((value) => value !== null))));
    const x = (time) => WIDTH - ((now - time) / span) * (WIDTH - LEFT);
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
    grid(drawing, top);
    for (const [text, at, anchor] of [[`${span / 60} min ago`, LEFT, "start"], ["now", WIDTH, "end"]]) {
      const label = svg("text", { x: at, y: HEIGHT - 4, "text-anchor": anchor });
      label.textContent = text;
      drawing.append(label);
    }
    names.forEach((_, index) => {
      let pen = "M";
      const path = points.map(({ time, values: row }) => {
        // Where nothing came there is nothing to say, so the line has a gap.
        if (row[index] === null) {
          pen = "M";
          return "";
        }
        const step = `${pen}${x(time).toFixed(1)} ${y(row[index]).toFixed(1)}`;
        pen = "L";
        return step;
      });
      drawing.append(svg("path", { class: `series-${index + 1}`, d: path.join("") || "M0 0" }));
      // A dot where the line has come to, which is all that there is of it at first.
      const value = points.at(-1)?.values[index] ?? null;
      if (value !== null) drawing.append(svg("circle", { class: `series-${index + 1}`, cx: WIDTH, cy: y(value), r: 2.5 }));
    });
    const present = points.at(-1)?.values ?? names.map(() => null);
    say(values, drawing, title, unit, names.map((name, index) => [name, present[index]]));
  };
  return { figure, draw };
}

/** A chart of bars, of `[name, value]` pairs. */
export function barChart(title, unit) {
  const { figure, values, drawing } = frame(title, unit);
  const draw = (pairs) => {
    const top = ceiling(Math.max(0, ...pairs.map(([, value]) => value)));
    grid(drawing, top);
    const step = (WIDTH - LEFT) / Math.max(1, pairs.length);
    pairs.forEach(([name, value], index) => {
      const height = (value / top) * (HEIGHT - BOTTOM - TOP);
      const label = svg("text", { x: LEFT + (index + 0.5) * step, y: HEIGHT - 4, "text-anchor": "middle" });
      label.textContent = name;
      drawing.append(svg("rect", { x: LEFT + index * step + 0.15 * step, width: 0.7 * step, y: HEIGHT - BOTTOM - height, height }), label);
    });
    const all = pairs.reduce((sum, [, value]) => sum + value, 0);
    say(values, drawing, title, unit, [["all", all]]);
  };
  return { figure, draw };
}

function say(values, drawing, title, unit, pairs) {
  const text = (value) => (value === null ? "–" : `${number(value)}`);
  values.replaceChildren(...pairs.map(([name, value], index) =>
    el("span", { className: `value series-${index + 1}` }, el("span", { className: "quiet", textContent: `${name} ` }),
      el("b", { textContent: text(value) }))));
  drawing.setAttribute("aria-label", `${title}: ${pairs.map(([name, value]) => `${name} ${text(value)} ${unit}`).join(", ")}`);
}

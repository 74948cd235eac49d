// The view Network: layers with their shapes and costs, the filters of the first, and what each makes of a picture.

import { get, modelPath, post, sentence } from "/page/api.js";
import { byId, el, fill, setOptions } from "/page/dom.js";
import { bytes, count, number, percent, shape } from "/page/format.js";
import { layersOf } from "/page/layers.js";

let state;
/** The choice that is shown, as text, so that an answer that comes late is not shown for another. */
let shown = "";
let layer = "";

export function startNetwork(shared) {
  state = shared;
  for (const event of ["changed", "shown"]) state.events.addEventListener(event, show);
  state.events.addEventListener("pictures", setPictures);
  byId("feature-picture").addEventListener("change", showFeatures);
  setPictures();
}

async function show() {
  const choice = state.choice();
  const key = JSON.stringify(choice);
  if (state.view !== "network" || !choice.model || key === shown) return;
  shown = key;
  layer = "";
  byId("network-title").textContent = `Network of ${choice.model}`;
  say("");
  for (const id of ["network-totals", "filters"]) byId(id).replaceChildren();
  byId("layers").tBodies[0].replaceChildren();
  showFeatures();
  try {
    const description = await layersOf(choice);
    if (key !== shown) return;
    showTotals(description);
    showLayers(description);
  } catch (error) {
    if (key === shown) say(sentence(error));
    shown = "";
    return;
  }
  showFilters(choice, key);
}

function say(text) {
  byId("network-notice").hidden = !text;
  byId("network-notice").textContent = text;
}

function showTotals(description) {
  const totals = [
    ["Input", shape(description.input_shape)],
    ["Parameters", count(description.parameters)],
    ["Multiply-accumulates", count(description.macs)],
    ["Activations", bytes(description.activation_bytes)],
    ["Layers", String(description.layers.length)],
  ];
  byId("network-totals").replaceChildren(...totals.map(([term, value]) =>
    el("div", {}, el("dt", { textContent: term }), el("dd", { textContent: value }))));
  if (description.not_inferred?.length) {
    say(`The shapes behind these operators are not known, so their costs are missing: ${description.not_inferred.join(", ")}.`);
  }
}

function showLayers({ layers }) {
  const most = (name) => Math.max(1, ...layers.map((it) => it[name]));
  const [parameters, macs, memory] = [most("parameters"), most("macs"), most("activation_bytes")];
  const cost = (value, largest, text) => {
    const cell = el("td", { className: "number share" }, value ? text(value) : el("span", { className: "quiet", textContent: "0" }));
    if (value) cell.append(fill(value / largest));
    return cell;
  };
  byId("layers").tBodies[0].replaceChildren(...layers.map((it) => el(
    "tr",
    {},
    el("td", {}, nameOf(it)),
    el("td", { textContent: it.operator }),
    el("td", { textContent: shape(it.output_shape) }),
    cost(it.parameters, parameters, count),
    cost(it.macs, macs, count),
    cost(it.activation_bytes, memory, bytes),
  )));
}

/** A layer's name: a button where it has maps to show. */
function nameOf({ name, output_shape: sizes }) {
  if (sizes?.length !== 3) return el("span", { className: "plain", textContent: name });
  const button = el("button", { type: "button", textContent: name, title: name, "aria-pressed": "false" });
  button.addEventListener("click", () => {
    for (const other of byId("layers").querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", String(other === button));
    layer = name;
    showFeatures();
  });
  return button;
}

async function showFilters(choice, key) {
  const place = byId("filters");
  try {
    const { png, shape: sizes, layer: name } = await get(`${modelPath(choice)}/filters`);
    if (key !== shown) return;
    const text = `${sizes[0]} filters of ${name}, ${sizes[3]} × ${sizes[2]} pixels each`;
    place.replaceChildren(pictureOf(png, text), el("p", { className: "quiet", textContent: `${text}.` }));
  } catch (error) {
    if (key === shown) place.replaceChildren(el("p", { className: "quiet", textContent: sentence(error) }));
  }
}

const pictureOf = (png, alt) => el("img", { src: `data:image/png;base64,${png}`, alt });

function setPictures() {
  setOptions(byId("feature-picture"), state.pictures.map((item) => [item.id, item.file.name]));
  byId("feature-picture").disabled = !state.pictures.length;
  if (!layer || !state.pictures.length) showFeatures();
}

async function showFeatures() {
  const place = byId("features");
  const said = (text, className = "quiet") => place.replaceChildren(el("p", { className, textContent: text }));
  const item = state.pictures.find((it) => it.id === byId("feature-picture").value);
  byId("features-title").textContent = layer ? `Feature maps of ${layer}` : "Feature maps";
  if (!item) return said("Add a picture in the view Classify first.");
  if (!layer) return said("Choose a layer.");
  const asked = { layer, item, key: shown };
  said("Looking…");
  const isStale = () => asked.layer !== layer || asked.key !== shown || byId("feature-picture").value !== item.id;
  try {
    const answer = await post(`${modelPath(state.choice())}/features`, item.file, { layer });
    if (isStale()) return;
    const [channels, height, width] = answer.shape;
    const text = `${channels} maps of ${width} × ${height}, each from its own lowest value (black) to its highest`;
    place.replaceChildren(
      pictureOf(answer.png, `${answer.layer} for ${item.file.name}: ${text}`),
      el("p", { className: "quiet", textContent: `${text}.` }),
      channelTable(answer),
    );
  } catch (error) {
    if (!isStale()) said(sentence(error), "error");
  }
}

function channelTable({ channels, layer: name }) {
  const rows = channels.map((it, index) => el(
    "tr",
    {},
    ...[String(index), number(it.min), number(it.max), number(it.mean), number(it.std), percent(it.active)]
      .map((textContent) => el("td", { className: "number", textContent })),
  ));
  const heads = ["Channel", "Min", "Max", "Mean", "Std", "Active"].map((textContent) => el("th", { scope: "col", className: "number", textContent }));
  return el("div", { className: "channels", role: "region", tabIndex: 0, "aria-label": `Channels of ${name}` },
    el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}

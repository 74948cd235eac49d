// The view Network: layers with their shapes and costs, and the filters of the first. What a layer makes of pictures is in features.js and
// exciting.js.

import { EXPLAINING, architecture, get, mayHaveMaps, modelPath, sentence } from "/page/api.js";
import { byId, el, fill, picture } from "/page/dom.js";
import { startExciting } from "/page/exciting.js";
import { startFeatures } from "/page/features.js";
import { bytes, count, shape } from "/page/format.js";
import { explanations } from "/page/queue.js";

let state;
/** What is shown, so that neither is the same asked for twice nor an answer that comes late shown for another. */
let shown = "";
let asking = new AbortController();
/** The layer that is looked at: its name and its shape, or `null`. */
let layer = null;
/** Whether the filters' last answer was a failure. */
let isWithoutFilters = false;

export function startNetwork(shared) {
  state = shared;
  state.layer = () => (shown === state.identity() ? layer : null);
  startFeatures(state);
  startExciting(state);
  for (const event of ["changed", "models", "shown"]) state.events.addEventListener(event, show);
}

async function show() {
  const choice = state.choice();
  const identity = state.identity();
  if (state.view !== "network" || !choice.model) return;
  if (identity === shown) {
    // What failed while the server was away is asked for again when it is back.
    if (isWithoutFilters && state.answers) showFilters(choice, asking.signal);
    return;
  }
  shown = identity;
  isWithoutFilters = false;
  asking.abort();
  const { signal } = asking = new AbortController();
  byId("network-title").textContent = `Network of ${choice.model}`;
  say("");
  for (const id of ["network-totals", "filters"]) byId(id).replaceChildren();
  // Whoever is at a layer with the keyboard stays in the table, which can be scrolled, and comes back to the layer.
  const table = byId("layers").parentElement;
  const focused = document.activeElement?.matches("#layers button") ? document.activeElement.textContent : null;
  if (focused) table.focus();
  byId("layers").tBodies[0].replaceChildren();
  const { members } = state.current();
  byId("network-parts").hidden = members.length > 0;
  if (members.length) {
    choose(null);
    say(`${choice.model} is an ensemble and has no layers of its own. Choose one of its members: ${members.join(", ")}.`);
    return;
  }
  try {
    const description = await architecture(choice, signal);
    showTotals(description);
    showLayers(description);
    const back = focused && document.activeElement === table && [...table.querySelectorAll("button")].find((it) => it.textContent === focused);
    if (back) back.focus();
  } catch (error) {
    if (signal.aborted) return;
    choose(null);
    say(sentence(error));
    // Asked again when the server answers again, and when somebody comes back to look.
    shown = "";
    return;
  }
  showFilters(choice, signal);
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
  const most = (name) => layers.reduce((most, it) => Math.max(most, it[name]), 1);
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
  // Another model may have the layer that was looked at, too.
  choose(layers.find((it) => mayHaveMaps(it) && it.name === layer?.name) ?? null);
}

/** A layer's name: a button where it has maps to show. */
function nameOf(it) {
  if (!mayHaveMaps(it)) return el("span", { className: "plain", textContent: it.name });
  const button = el("button", { type: "button", textContent: it.name, title: it.name, "aria-pressed": "false" });
  button.addEventListener("click", () => choose(it));
  return button;
}

/** Looks at another layer, or at none. */
function choose(chosen) {
  layer = chosen;
  for (const button of byId("layers").querySelectorAll("[aria-pressed]")) {
    button.setAttribute("aria-pressed", String(button.textContent === layer?.name));
  }
  state.tell("layer");
}

async function showFilters(choice, signal) {
  const place = byId("filters");
  isWithoutFilters = false;
  try {
    const path = `${modelPath(choice)}/filters`;
    const { png, shape: sizes, layer: name } = await explanations.run(() => get(path, signal, EXPLAINING), signal);
    const text = `${sizes[0]} filters of ${name}, ${sizes[3]} × ${sizes[2]} pixels each`;
    place.replaceChildren(picture(png, text), el("p", { className: "quiet", textContent: `${text}.` }));
  } catch (error) {
    if (signal.aborted) return;
    // A model that has none will not have any.
    isWithoutFilters = error.status === 0;
    place.replaceChildren(el("p", { className: "quiet", textContent: sentence(error) }));
  }
}

// The feature maps of the layer that is looked at, for one of the pictures.

import { EXPLAINING, modelPath, post, sentence } from "/page/api.js";
import { byId, el, picture, replaceKeepingFocus, setOptions } from "/page/dom.js";
import { number, percent } from "/page/format.js";
import { explanations } from "/page/queue.js";

let state;
/** What is shown or on its way, as text. */
let shown = "";
let asking = new AbortController();
/** Whether the last answer was a failure. */
let isFailed = false;

export function startFeatures(shared) {
  state = shared;
  state.events.addEventListener("pictures", setPictures);
  for (const event of ["layer", "shown"]) state.events.addEventListener(event, show);
  byId("feature-picture").addEventListener("change", show);
  // What failed while the server was away is asked for again when it is back.
  state.events.addEventListener("models", () => {
    if (isFailed && state.answers) show();
  });
  setPictures();
}

function setPictures() {
  const readable = state.readable();
  setOptions(byId("feature-picture"), readable.map((item) => [item.id, item.file.name]));
  byId("feature-picture").disabled = !readable.length;
  show();
}

async function show() {
  const layer = state.layer()?.name;
  const item = state.pictures.find((it) => it.id === byId("feature-picture").value);
  const wanted = JSON.stringify([state.identity(), layer, item?.id]);
  if (wanted === shown) return;
  shown = "";
  isFailed = false;
  asking.abort();
  const place = byId("features");
  // Nobody waits for it.
  if (state.view !== "network") return place.replaceChildren();
  shown = wanted;
  const { signal } = asking = new AbortController();
  const say = (text, className = "quiet") => replaceKeepingFocus(place, el("p", { className, textContent: text }));
  byId("features-title").textContent = layer ? `Feature maps of ${layer}` : "Feature maps";
  if (!item) return say("Add a picture in the view Classify first.");
  if (!layer) return say("Choose a layer.");
  say("Looking…");
  const path = `${modelPath(state.choice())}/features`;
  try {
    const answer = await explanations.run(() => post(path, item.file, { layer }, signal, EXPLAINING), signal);
    const [channels, height, width] = answer.shape;
    // Maps of one value have nothing to be scaled by but each other.
    const text = answer.shape.length === 3 && height * width > 1
      ? `${channels} maps of ${width} × ${height}, each from its own lowest value (black) to its highest`
      : `${channels} values, from the lowest of all (black) to the highest`;
    replaceKeepingFocus(
      place,
      picture(answer.png, `${answer.layer} for ${item.file.name}: ${text}`),
      el("p", { className: "quiet", textContent: `${text}.` }),
      channelTable(answer),
    );
  } catch (error) {
    if (signal.aborted) return;
    say(sentence(error), "error");
    shown = "";
    isFailed = true;
  }
}

function channelTable({ channels, layer: name }) {
  // A value that is no number comes as null.
  const text = (value, form = number) => (value === null ? "NaN" : form(value));
  const rows = channels.map((it, index) => el(
    "tr",
    {},
    ...[String(index), text(it.min), text(it.max), text(it.mean), text(it.std), text(it.active, percent)]
      .map((textContent) => el("td", { className: "number", textContent })),
  ));
  const heads = ["Channel", "Min", "Max", "Mean", "Std", "Active"].map((textContent) => el("th", { scope: "col", className: "number", textContent }));
  return el("div", { className: "channels", role: "region", tabIndex: 0, "aria-label": `Channels of ${name}` },
    el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}

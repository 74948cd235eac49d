// "Why": an explanation of one picture's answer, painted over the picture.

import { EXPLAINING, architecture, mayHaveMaps, modelPath, post, sentence } from "/page/api.js";
import { el, setOptions } from "/page/dom.js";
import { milliseconds, number } from "/page/format.js";
import { heatmapCanvas, projectionCanvas, strongestPlace } from "/page/picture.js";
import { explanations } from "/page/queue.js";

const METHODS = [
  ["", "what suits the model"],
  ["cam", "CAM"],
  ["gradcam", "Grad-CAM"],
  ["occlusion", "Occlusion"],
  ["deconvnet", "DeconvNet"],
  ["guided", "Guided backprop"],
  ["gradient", "Gradient"],
];

const PROJECTIONS = ["deconvnet", "guided", "gradient"];

/** What a method shows, in a sentence that begins with what it is about. */
const MEANING = {
  cam: "where the last feature maps speak for it",
  gradcam: "where the feature maps speak for it, by their gradient",
  occlusion: "where covering the picture costs it most",
  deconvnet: "what in the picture drives it, taken back through the network",
  guided: "what in the picture drives it, by guided backpropagation",
  gradient: "which pixels change it most",
};

/**
 * The controls and the words of an explanation of the answer on the card, as `element`. It is asked of the version that gave the answer;
 * `onOther` is told where that has been loaded again. `stop()` ends what is under way, `forget()` takes back what was said, `close()` ends
 * it for good and returns what is chosen: as the item's `kept` it is chosen in the next panel, as far as the model has it.
 */
export function whyPanel({ item, classes, labelOf, onOther }) {
  const { answered } = item;
  const kept = item.kept ?? {};
  const button = el("button", { type: "submit", className: "explain", textContent: "Why?" });
  const method = el("select", { className: "method" });
  setOptions(method, METHODS);
  method.value = kept.method ?? "";
  const about = el("select", { className: "about" });
  setOptions(about, classes.map((it) => [String(it.index), labelOf(it)]));
  // The first is meant as the most probable, whichever that is; another class has its label in other models, too.
  const again = kept.label && classes.find((it) => labelOf(it) === kept.label);
  if (again) about.value = String(again.index);
  const layer = el("select", { className: "layer" });
  setOptions(layer, [["", "the class itself"]]);
  const unit = el("input", { type: "number", className: "unit", min: "0", step: "1", placeholder: "strongest" });
  const opacity = el("input", { type: "range", min: "0", max: "100", value: kept.opacity ?? "60" });
  const said = el("p", { className: "said", role: "status" });
  const legend = el("p", { className: "said quiet", hidden: true }, "little ", el("span", { className: "legend" }), " much");

  const labels = {
    about: el("label", {}, el("span", { textContent: "of" }), about),
    layer: el("label", {}, el("span", { textContent: "layer" }), layer),
    unit: el("label", {}, el("span", { textContent: "unit" }), unit),
    opacity: el("label", {}, el("span", { textContent: "opacity" }), opacity),
  };
  let wasProjected = kept.wasProjected ?? null;
  let running = null;
  const life = new AbortController();
  const isProjection = () => PROJECTIONS.includes(method.value);
  const arrange = () => {
    labels.layer.hidden = !isProjection();
    labels.unit.hidden = !isProjection() || !layer.value;
    labels.about.hidden = isProjection() && layer.value !== "";
  };
  const element = el("form", { className: "why", "aria-label": `Why this answer for ${item.file.name}` },
    el("div", { className: "fields" }, button, el("label", {}, el("span", { textContent: "by" }), method), labels.about, labels.layer, labels.unit, labels.opacity),
    said, legend);
  labels.opacity.hidden = true;
  arrange();

  const say = (text, className = "quiet") => {
    said.className = `said ${className}`;
    said.textContent = text;
  };
  const fail = (error) => {
    say(sentence(error), "error");
    legend.hidden = labels.opacity.hidden = true;
    item.view.clear();
  };
  /** Offers the layers where they are wanted, and chooses the one that was. */
  async function offerLayers() {
    if (!isProjection() || layer.options.length > 1) return;
    try {
      const maps = (await architecture(answered, life.signal)).layers.filter(mayHaveMaps);
      setOptions(layer, [["", "the class itself"], ...maps.map((it) => [it.name, it.name])]);
      if (!kept.layer || layer.value || !maps.some((it) => it.name === kept.layer)) return;
      layer.value = kept.layer;
      unit.value = kept.unit;
      arrange();
    } catch (error) {
      if (!life.signal.aborted) fail(error);
    }
  }
  offerLayers();

  method.addEventListener("change", () => {
    arrange();
    offerLayers();
  });
  layer.addEventListener("change", arrange);
  opacity.addEventListener("input", () => item.view.setOpacity(opacity.value / 100));
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return stop();
    const { signal } = running = new AbortController();
    button.textContent = "Stop";
    say("Waiting…");
    const ofLayer = isProjection() && layer.value;
    const query = {
      method: method.value,
      class: ofLayer ? "" : about.value,
      layer: ofLayer ? layer.value : "",
      unit: ofLayer ? unit.value : "",
    };
    try {
      await explanations.run(async () => {
        say("Looking…");
        const started = performance.now();
        const answer = await post(`${modelPath(answered)}/explain`, item.file, query, signal, EXPLAINING);
        await paint(answer, performance.now() - started, signal);
      }, signal);
    } catch (error) {
      if (!signal.aborted) fail(error);
    }
    if (signal.aborted) return;
    running = null;
    button.textContent = "Why?";
  });

  /** Ends what is under way. The server stops too, as it sees that nobody listens. */
  function stop() {
    if (!running) return;
    running.abort();
    running = null;
    button.textContent = "Why?";
    say("Stopped.");
  }

  async function paint(answer, took, signal) {
    if (answer.model_loaded_ms !== answered.loaded) return onOther();
    const projected = PROJECTIONS.includes(answer.method);
    const picture = projected ? projectionCanvas(await bitmapOf(answer.png)) : heatmapCanvas(answer.heatmap);
    const words = inWords(answer);
    const text = words.map((it) => it.textContent ?? it).join("");
    await item.view.loaded;
    // The picture may have another answer by now, which this says nothing of.
    signal.throwIfAborted();
    if (projected !== wasProjected) {
      // A projection lets the picture through by itself.
      opacity.value = projected ? "100" : "60";
      wasProjected = projected;
    }
    const { canShow } = item.view;
    if (canShow) {
      item.view.setOpacity(opacity.value / 100);
      item.view.show(picture, answer.frame, text);
    } else {
      // The server paints a heatmap over the picture itself, in its own colours.
      item.view.showInstead(answer.png, text);
      if (!projected) words.push(" Blue is little, red is much.");
    }
    said.className = "said";
    said.replaceChildren(...words, el("span", { className: "quiet", textContent: ` ${milliseconds(took)}` }));
    labels.opacity.hidden = !canShow;
    legend.hidden = projected || !canShow;
  }

  function forget() {
    stop();
    say("");
    legend.hidden = labels.opacity.hidden = true;
  }

  /** What is shown, as texts and elements: a name that is written from right to left, or says that it is, leaves the rest as it is. */
  function inWords(answer) {
    const [first] = answer.units;
    const name = (textContent) => el("bdi", { textContent });
    const subject = answer.class
      ? ["“", name(labelOf(answer.class)), "”"]
      : [`unit ${first?.unit} of `, name(answer.layer), ` (activation ${number(first?.activation ?? 0)})`];
    const place = strongestPlace(answer.heatmap, answer.frame);
    return [`${answer.method}, `, ...subject, `: ${MEANING[answer.method] ?? ""}. Strongest ${place}.`];
  }

  function close() {
    life.abort();
    stop();
    return {
      method: method.value,
      label: about.selectedIndex > 0 ? about.selectedOptions[0].textContent : "",
      layer: layer.value || (layer.options.length > 1 ? "" : kept.layer),
      unit: layer.value ? unit.value : kept.unit,
      opacity: opacity.value,
      wasProjected,
    };
  }
  return { element, stop, forget, close };
}

/** The picture of a base64 PNG. */
async function bitmapOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

// "Why": an explanation of one picture's answer, painted over the picture.

import { modelPath, post, sentence } from "/page/api.js";
import { el, setOptions } from "/page/dom.js";
import { milliseconds, number } from "/page/format.js";
import { layersOf } from "/page/layers.js";
import { heatmapCanvas, projectionCanvas, strongestPlace } from "/page/picture.js";

const METHODS = [
  ["", "Class activation"],
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

/** The controls and the words of an explanation. */
export function whyPanel({ item, classes, choice, labelOf }) {
  const button = el("button", { type: "submit", className: "explain", textContent: "Why?" });
  const method = el("select", { className: "method" });
  setOptions(method, METHODS);
  const about = el("select", { className: "about" });
  const layer = el("select", { className: "layer" });
  setOptions(layer, [["", "the class itself"]]);
  const unit = el("input", { type: "number", min: "0", step: "1", placeholder: "strongest" });
  const opacity = el("input", { type: "range", min: "0", max: "100", value: "60" });
  const said = el("p", { className: "said", role: "status" });
  const legend = el("p", { className: "said quiet", hidden: true }, "little ", el("span", { className: "legend" }), " much");
  setOptions(about, classes.map((it) => [String(it.index), labelOf(it)]));

  const labels = {
    about: el("label", {}, el("span", { textContent: "of" }), about),
    layer: el("label", {}, el("span", { textContent: "layer" }), layer),
    unit: el("label", {}, el("span", { textContent: "unit" }), unit),
    opacity: el("label", {}, el("span", { textContent: "opacity" }), opacity),
  };
  let wasProjected = null;
  const isProjection = () => PROJECTIONS.includes(method.value);
  const arrange = () => {
    labels.layer.hidden = !isProjection();
    labels.unit.hidden = !isProjection() || !layer.value;
    labels.about.hidden = isProjection() && layer.value !== "";
  };
  const form = el("form", { className: "why", "aria-label": `Why this answer for ${item.file.name}` },
    el("div", { className: "fields" }, button, el("label", {}, el("span", { textContent: "by" }), method), labels.about, labels.layer, labels.unit, labels.opacity),
    said, legend);
  labels.opacity.hidden = true;
  arrange();

  method.addEventListener("change", async () => {
    arrange();
    if (!isProjection() || layer.options.length > 1) return;
    try {
      const { layers } = await layersOf(choice);
      const maps = layers.filter((it) => it.output_shape?.length === 3);
      setOptions(layer, [["", "the class itself"], ...maps.map((it) => [it.name, it.name])]);
    } catch (error) {
      fail(error);
    }
  });
  layer.addEventListener("change", arrange);
  opacity.addEventListener("input", () => item.view.setOpacity(opacity.value / 100));
  const fail = (error) => {
    said.className = "said error";
    said.textContent = sentence(error);
    legend.hidden = labels.opacity.hidden = true;
    item.view.clear();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    said.className = "said quiet";
    said.textContent = "Looking…";
    const ofLayer = isProjection() && layer.value;
    const query = {
      method: method.value,
      class: ofLayer ? "" : about.value,
      layer: ofLayer ? layer.value : "",
      unit: ofLayer ? unit.value : "",
    };
    const started = performance.now();
    try {
      const answer = await post(`${modelPath(choice)}/explain`, item.file, query);
      await paint(answer, performance.now() - started);
    } catch (error) {
      fail(error);
    }
    button.disabled = false;
  });

  async function paint(answer, took) {
    const projected = PROJECTIONS.includes(answer.method);
    const picture = projected ? projectionCanvas(await bitmapOf(answer.png)) : heatmapCanvas(answer.heatmap);
    const words = inWords(answer);
    await item.view.loaded;
    if (projected !== wasProjected) {
      // A projection lets the picture through by itself.
      opacity.value = projected ? "100" : "60";
      wasProjected = projected;
    }
    item.view.setOpacity(opacity.value / 100);
    item.view.show(picture, answer.frame, words);
    said.className = "said";
    said.replaceChildren(words, el("span", { className: "quiet", textContent: ` ${milliseconds(took)}` }));
    labels.opacity.hidden = false;
    legend.hidden = projected;
  }

  function inWords(answer) {
    const [first] = answer.units;
    const subject = answer.class
      ? `“${labelOf(answer.class)}”`
      : `unit ${first?.unit} of ${answer.layer} (activation ${number(first?.activation ?? 0)})`;
    return `${answer.method}, ${subject}: ${MEANING[answer.method] ?? ""}. Strongest ${strongestPlace(answer.heatmap)}.`;
  }
  return form;
}

/** The picture of a base64 PNG. */
async function bitmapOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

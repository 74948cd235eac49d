// The view Classify: pictures come in by drop, paste or choice, each is sent by itself, and its classes are shown as they come.

import { ApiError, modelPath, post, sentence } from "/page/api.js";
import { byId, el, fill } from "/page/dom.js";
import { milliseconds, percent } from "/page/format.js";
import { PictureView } from "/page/picture.js";
import { classifications } from "/page/queue.js";
import { whyPanel } from "/page/why.js";

let state;
let nextId = 1;

export function startClassify(shared) {
  state = shared;
  const drop = byId("drop");
  byId("files").addEventListener("change", (event) => {
    add([...event.target.files]);
    // The same file can be chosen once more.
    event.target.value = "";
  });
  // The whole page takes what is dropped, so that a near miss doesn't leave it for the picture.
  let depth = 0;
  const over = (by) => {
    depth = Math.max(0, depth + by);
    drop.classList.toggle("over", depth > 0);
  };
  window.addEventListener("dragenter", () => over(1));
  window.addEventListener("dragleave", () => over(-1));
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    over(0);
    add([...event.dataTransfer.files]);
  });
  window.addEventListener("paste", (event) => add([...(event.clipboardData?.files ?? [])]));
  byId("again").addEventListener("click", classifyAll);
  byId("top-k").addEventListener("change", classifyAll);
  byId("clear").addEventListener("click", () => {
    for (const item of [...state.pictures]) remove(item);
    byId("files").focus();
  });
  state.events.addEventListener("changed", classifyAll);
}

function add(files) {
  if (!files.length) return;
  location.hash = "classify";
  for (const file of files) {
    const item = makeItem(file);
    state.pictures.push(item);
    byId("pictures").append(item.card);
    enqueue(item);
  }
  state.tell("pictures");
}

/** A picture, its card, and the places in it that change. */
function makeItem(file) {
  const id = `picture-${nextId++}`;
  const item = {
    file,
    id,
    view: new PictureView(file),
    said: el("p", { className: "quiet", role: "status" }),
    classes: el("ol", { className: "classes", "aria-label": `Classes of ${file.name}` }),
    timing: el("dl", { className: "timing", "aria-label": "Timing" }),
    why: el("div", { className: "reason" }),
    panel: null,
    /** What was chosen in a panel before, for the next. */
    kept: null,
    /** Of the classification that is under way. */
    controller: null,
    /** Whether the server has refused the file. */
    isRefused: false,
  };
  const close = el("button", { type: "button", className: "remove", textContent: "Remove", "aria-label": `Remove ${file.name}` });
  close.addEventListener("click", () => {
    const index = state.pictures.indexOf(item);
    remove(item);
    // Whoever works with the keyboard goes on with the next picture.
    const next = state.pictures[Math.min(index, state.pictures.length - 1)];
    (next?.card.querySelector(".remove") ?? byId("files")).focus();
  });
  item.card = el(
    "li",
    { className: "picture", "aria-labelledby": id },
    el("header", {}, el("h2", { id, textContent: file.name, title: file.name }), item.view.size, close),
    item.view.element,
    el("div", { className: "answer" }, item.said, item.classes, item.timing),
    item.why,
  );
  return item;
}

function remove(item) {
  item.controller?.abort();
  closePanel(item);
  item.card.remove();
  item.view.close();
  state.pictures.splice(state.pictures.indexOf(item), 1);
  progress();
  state.tell("pictures");
}

function classifyAll() {
  if (state.choice().model) state.pictures.forEach(enqueue);
}

async function enqueue(item) {
  item.controller?.abort();
  // What is explained is an answer that will be replaced.
  item.panel?.stop();
  const controller = new AbortController();
  const { signal } = controller;
  item.controller = controller;
  item.said.className = "quiet";
  item.said.textContent = "Waiting…";
  progress();
  try {
    await classifications.run(() => classify(item, signal), signal);
  } catch (error) {
    if (!signal.aborted) showError(item, error);
  }
  if (item.controller === controller) item.controller = null;
  progress();
}

async function classify(item, signal) {
  const choice = state.choice();
  if (!choice.model) throw new ApiError(0, "there is no model that is ready");
  item.said.textContent = "Classifying…";
  const started = performance.now();
  const path = `${modelPath(choice)}/classify`;
  const answer = await post(path, item.file, { top_k: byId("top-k").value }, signal);
  show(item, answer, performance.now() - started, choice);
}

/** Ends what is explained, and remembers what was chosen for it. */
function closePanel(item) {
  item.kept = item.panel?.close() ?? item.kept;
  item.panel = null;
}

function show(item, { model_name: name, model_version: version, predictions, timing }, roundTrip, choice) {
  const classes = predictions[0].classes;
  item.said.className = "visually-hidden";
  item.said.textContent = `${item.file.name}: ${labelOf(classes[0])}, ${percent(classes[0].score)}`;
  item.classes.replaceChildren(...classes.map((it) => el(
    "li",
    {},
    fill(it.score),
    el("span", { className: "label", textContent: labelOf(it) }),
    el("span", { className: "score", textContent: percent(it.score) }),
  )));
  const rest = timing.total_ms - timing.decode_ms - timing.queue_ms - timing.compute_ms;
  const times = [
    ["decode", milliseconds(timing.decode_ms)],
    ["queue", milliseconds(timing.queue_ms)],
    ["batch", `${timing.batch_size}`],
    ["compute", milliseconds(timing.compute_ms)],
    ["other", milliseconds(Math.max(0, rest))],
    ["round trip", milliseconds(roundTrip)],
    ["by", `${name} ${version}`],
  ];
  item.timing.replaceChildren(...times.map(([term, value]) =>
    el("div", {}, el("dt", { textContent: term }), el("dd", { textContent: value }))));
  item.isRefused = false;
  item.view.clear();
  closePanel(item);
  item.panel = whyPanel({ item, classes, choice, labelOf });
  item.why.replaceChildren(item.panel.element);
}

function showError(item, error) {
  item.said.className = "error";
  item.said.textContent = sentence(error);
  item.isRefused = [400, 413, 415].includes(error.status);
  item.view.clear();
  closePanel(item);
  for (const part of [item.classes, item.timing, item.why]) part.replaceChildren();
}

/** A class's label, or its number where the model has no labels. */
const labelOf = ({ index, label }) => label ?? `class ${index}`;

function progress() {
  const all = state.pictures.length;
  const left = state.pictures.filter((it) => it.controller).length;
  byId("progress").textContent = all ? `${all - left} of ${all} done` : "";
  byId("again").disabled = byId("clear").disabled = !all;
}

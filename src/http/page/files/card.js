// A picture's card in the view Classify: the picture, its answer, and why.

import { sentence } from "/page/api.js";
import { el, fill } from "/page/dom.js";
import { milliseconds, percent } from "/page/format.js";
import { PictureView } from "/page/picture.js";
import { whyPanel } from "/page/why.js";

export const LOADED_AGAIN = "The model has been loaded again since this answer.";

let nextId = 1;

/** A picture, its card, and the places in it that change. `onRemove` and `onAgain` are told that its buttons were pressed. */
export function makeCard(file, { onRemove, onAgain }) {
  const id = `picture-${nextId++}`;
  const item = {
    file,
    id,
    view: new PictureView(file),
    said: el("p", { className: "quiet", role: "status" }),
    classes: el("ol", { className: "classes", "aria-label": `Classes of ${file.name}` }),
    timing: el("dl", { className: "timing", "aria-label": "Timing" }),
    outdated: el("p", { className: "outdated", role: "status" }),
    again: el("button", { type: "button", className: "again", textContent: "Classify again", "aria-label": `Classify ${file.name} again`, hidden: true }),
    why: el("div", { className: "reason" }),
    /** What the answer on the card is of: a model, its version, and when that was loaded, which tells it from the same loaded again; when
     * it came, and whether another is known to be in its place. */
    answered: null,
    panel: null,
    /** What was chosen in a panel before, for the next. */
    kept: null,
    /** Of the classification that is under way. */
    controller: null,
    /** Whether the server has refused the file. */
    isRefused: false,
    /** Whether there is no answer for another reason, which may be over when it is asked again. */
    isFailed: false,
  };
  const close = el("button", { type: "button", className: "remove", textContent: "Remove", "aria-label": `Remove ${file.name}` });
  close.addEventListener("click", () => onRemove(item));
  item.again.addEventListener("click", () => onAgain(item));
  item.card = el(
    "li",
    { className: "picture", "aria-labelledby": id },
    el("header", {}, el("h2", { id, textContent: file.name, title: file.name }), item.view.size, close),
    item.view.element,
    el("div", { className: "answer" }, item.said, item.classes, item.timing, item.outdated, item.again),
    item.why,
  );
  return item;
}

/** Shows the classes of an answer that took `roundTrip` milliseconds. `members` are those of the ensemble that gave it. */
export function showAnswer(item, answer, roundTrip, members = []) {
  const { model_name: model, model_version: version, model_loaded_ms: loaded, predictions, timing } = answer;
  const classes = predictions[0].classes;
  item.said.className = "visually-hidden";
  item.said.textContent = `${item.file.name}: ${labelOf(classes[0])}, ${percent(classes[0].score)}`;
  item.classes.replaceChildren(...classes.map((it) => el(
    "li",
    {},
    fill(it.score),
    el("span", { className: "label", textContent: labelOf(it), title: labelOf(it) }),
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
    ["by", `${model} ${version}`],
  ];
  item.timing.replaceChildren(...times.map(([term, value]) =>
    el("div", {}, el("dt", { textContent: term }), el("dd", { textContent: value }))));
  item.isRefused = item.isFailed = false;
  const answered = item.answered = { model, version, loaded, at: performance.now(), isReplaced: false };
  keepFocus(item, () => {
    setOutdated(item, "");
    item.view.clear();
    closePanel(item);
    if (members.length) {
      item.why.replaceChildren(el("p", { className: "quiet", textContent: `Why? An ensemble is not explained. Choose one of its members: ${members.join(", ")}.` }));
      return;
    }
    const onOther = () => {
      answered.isReplaced = true;
      outdate(item, LOADED_AGAIN);
    };
    item.panel = whyPanel({ item, classes, labelOf, onOther });
    item.why.replaceChildren(item.panel.element);
  });
}

export function showError(item, error) {
  item.said.className = "error";
  item.said.textContent = sentence(error);
  item.isRefused = [400, 413, 415].includes(error.status);
  item.isFailed = !item.isRefused;
  item.answered = null;
  keepFocus(item, () => {
    setOutdated(item, "");
    item.view.clear();
    closePanel(item);
    for (const part of [item.classes, item.timing, item.why]) part.replaceChildren();
  });
}

/** Says that the answer on the card is not what would be answered now; with no words, that it is. An answer that is outdated is not
 * explained: the explanation would be another model's. */
export function outdate(item, words) {
  if (item.outdated.textContent === words) return;
  keepFocus(item, () => {
    setOutdated(item, words);
    if (item.panel) item.panel.element.hidden = Boolean(words);
  });
  if (!words) return;
  item.panel?.forget();
  item.view.clear();
}

/** Says so, and offers to ask again where that may help. */
function setOutdated(item, words) {
  item.outdated.textContent = words;
  item.again.hidden = !words && !item.isFailed;
}

/** Ends what is explained, and remembers what was chosen for it. */
export function closePanel(item) {
  item.kept = item.panel?.close() ?? item.kept;
  item.panel = null;
}

/** Makes a `change` to the card. Whoever is in a part of it that goes, with the keyboard, goes on with what comes in its place. */
function keepFocus(item, change) {
  const wasInside = item.why.contains(document.activeElement) || document.activeElement === item.again;
  change();
  // What is hidden keeps the focus for a moment.
  const at = document.activeElement;
  if (!wasInside || (item.card.contains(at) && !at.closest("[hidden]"))) return;
  const places = [item.again, item.panel?.element.querySelector(".explain"), item.card.querySelector(".remove")];
  places.find((it) => it && !it.closest("[hidden]"))?.focus();
}

/** A class's label, or its number where the model has no labels. */
const labelOf = ({ index, label }) => label ?? `class ${index}`;

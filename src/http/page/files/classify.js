// The view Classify: pictures come in by drop, paste or choice, each is sent by itself, and its classes are shown as they come.

import { CLASSIFYING, ApiError, modelPath, post } from "/page/api.js";
import { LOADED_AGAIN, closePanel, makeCard, outdate, showAnswer, showError } from "/page/card.js";
import { byId } from "/page/dom.js";
import { classifications } from "/page/queue.js";

let state;
/** Whether what is chosen was ready, and not in the place of another, when the server was last asked. */
let stood = false;

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
  state.events.addEventListener("chosen", () => {
    stood = state.stands();
    classifyAll();
  });
  for (const event of ["listed", "models"]) state.events.addEventListener(event, askAgain);
  state.events.addEventListener("listed", () => state.pictures.forEach(check));
}

function add(files) {
  if (!files.length) return;
  location.hash = "classify";
  for (const file of files) {
    const item = makeCard(file, { onRemove: removeByHand, onAgain: enqueue });
    state.pictures.push(item);
    byId("pictures").append(item.card);
    enqueue(item);
  }
  state.tell("pictures");
}

function removeByHand(item) {
  const index = state.pictures.indexOf(item);
  remove(item);
  // Whoever works with the keyboard goes on with the next picture.
  const next = state.pictures[Math.min(index, state.pictures.length - 1)];
  (next?.card.querySelector(".remove") ?? byId("files")).focus();
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

/** Asks again about what has no answer, when what was chosen is back. What is in its place meanwhile is asked about nothing that nobody
 * has given it. */
function askAgain() {
  const stands = state.stands();
  if (stands && !stood) state.pictures.filter((it) => it.isFailed && !it.controller).forEach(enqueue);
  stood = stands;
}

async function enqueue(item) {
  // Whatever else is chosen until it is the picture's turn.
  const choice = state.choice();
  item.controller?.abort();
  // What is explained is an answer that will be replaced.
  item.panel?.stop();
  const controller = new AbortController();
  const { signal } = controller;
  item.controller = controller;
  item.said.className = "quiet";
  item.said.textContent = "Waiting…";
  progress();
  const wasRefused = item.isRefused;
  try {
    await classifications.run(() => classify(item, choice, signal), signal);
  } catch (error) {
    if (!signal.aborted) showError(item, error);
  }
  if (item.controller === controller) item.controller = null;
  // What the server can't read is none of the pictures that the other views offer.
  if (item.isRefused !== wasRefused) state.tell("pictures");
  progress();
}

/** Says so where the answer on a card is not of what would answer now: the model was loaded again, or another version is the newest. */
function check(item) {
  const { answered } = item;
  // One that is on its way will be of what answers now; and a list that was asked for before an answer came may be older than that.
  if (!answered || item.controller || state.asked < answered.at || answered.isReplaced) return;
  const now = state.current();
  const isReady = state.models.find((it) => it.name === answered.model)?.versions.includes(answered.version);
  if (!isReady) outdate(item, `${answered.model} ${answered.version}, which gave this answer, is not ready any more.`);
  else if (now.model !== answered.model) outdate(item, `${now.model} is chosen now. This answer is ${answered.model}’s.`);
  else if (now.version !== answered.version) outdate(item, `Version ${now.version} is the newest now. This answer is version ${answered.version}’s.`);
  else if (now.loaded !== answered.loaded) outdate(item, LOADED_AGAIN);
  else outdate(item, "");
}

async function classify(item, choice, signal) {
  if (!choice.model) throw new ApiError(0, "there is no model that is ready");
  item.said.textContent = "Classifying…";
  const started = performance.now();
  const path = `${modelPath(choice)}/classify`;
  const answer = await post(path, item.file, { top_k: byId("top-k").value }, signal, CLASSIFYING);
  const members = state.models.find((it) => it.name === answer.model_name)?.members;
  showAnswer(item, answer, performance.now() - started, members);
}

function progress() {
  const all = state.pictures.length;
  const left = state.pictures.filter((it) => it.controller).length;
  byId("progress").textContent = all ? `${all - left} of ${all} done` : "";
  byId("again").disabled = byId("clear").disabled = !all;
}

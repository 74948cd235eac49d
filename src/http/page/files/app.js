// The page: its views, the list of models, and the key. The views know of each other only what `state` says.

import { get, hasKey, sentence, setKey } from "/page/api.js";
import { choice, offer, onChoice, stands } from "/page/choice.js";
import { startClassify } from "/page/classify.js";
import { byId } from "/page/dom.js";
import { startNetwork } from "/page/network.js";
import { startServer } from "/page/server.js";

const VIEWS = ["classify", "network", "server"];

/** How often the server is asked which models there are, while somebody looks. */
const INTERVAL_MS = 3000;
/** How long a server that hangs is waited for. */
const PATIENCE_MS = 5000;

/** What all views share. `changed` is dispatched on `events` when another model or version is chosen, before it `chosen` where somebody has done
 * that, `listed` when the server has said which models there are, `models` when that is another list or the server has ceased or begun to answer,
 * `pictures` when the pictures are others, `shown` when another view is, `layer` when another layer is looked at. */
const state = {
  events: new EventTarget(),
  models: [],
  /** Whether the server has answered when it was last asked. */
  answers: true,
  /** When the list of models was asked for that is known. */
  asked: 0,
  pictures: [],
  /** The pictures that the server can read. */
  readable: () => state.pictures.filter((it) => !it.isRefused),
  view: "classify",
  choice,
  /** Whether the server answers, and what is chosen is ready and what somebody has chosen. */
  stands: () => state.answers && stands(),
  /** What would answer now, as far as the server has said: the version that the choice means, when it was loaded, and all that are
   * ready; of an ensemble its members. */
  current: () => {
    const { model, version: chosen } = choice();
    const details = state.models.find((it) => it.name === model);
    const version = chosen || details?.versions.at(-1);
    return { model, version, loaded: details?.loaded_ms?.[version], versions: details?.versions ?? [], members: details?.members ?? [] };
  },
  /** What is chosen as text, which is another when that has been loaded again. */
  identity: () => {
    const { version, loaded } = state.current();
    return JSON.stringify([choice(), version, loaded]);
  },
  /** The layer that the view Network looks at, or `null`. */
  layer: () => null,
  tell: (name) => state.events.dispatchEvent(new Event(name)),
};

/** Whether to go on asking: without the key that is asked for there is no use in it. */
let isRefused = false;
let asking = null;

function say(text) {
  if (byId("notice").textContent === text) return;
  byId("notice").hidden = !text;
  byId("notice").textContent = text;
}

/** Shows the view that the address names. */
function show() {
  const asked = location.hash.slice(1);
  state.view = VIEWS.includes(asked) ? asked : VIEWS[0];
  for (const view of VIEWS) {
    byId(`view-${view}`).hidden = view !== state.view;
    const link = document.querySelector(`nav a[href="#${view}"]`);
    if (view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  state.tell("shown");
}

/** Asks which models there are; what is chosen stays chosen as long as it is there, and is chosen again when it is back. */
async function loadModels() {
  asking?.abort();
  const controller = asking = new AbortController();
  const before = JSON.stringify([state.models, state.answers]);
  try {
    const patient = AbortSignal.any([controller.signal, AbortSignal.timeout(PATIENCE_MS)]);
    const now = performance.now();
    state.models = (await get("/v1/models", patient)).details;
    state.asked = now;
    state.answers = true;
    isRefused = false;
  } catch (error) {
    if (controller.signal.aborted) return;
    state.answers = false;
    isRefused = error.status === 401;
    say(sentence(error));
    if (isRefused && !byId("key-dialog").open) askForKey("This server asks for an API key. Yours stays in this tab and is forgotten when the tab closes.");
  }
  asking = null;
  if (state.answers) {
    const before = JSON.stringify(choice());
    say(offer(state.models));
    if (JSON.stringify(choice()) !== before) state.tell("changed");
    state.tell("listed");
  }
  if (JSON.stringify([state.models, state.answers]) !== before) state.tell("models");
}

async function loadServer() {
  try {
    byId("server-version").textContent = (await get("/v2")).version;
  } catch {
    // The list of models says what is wrong.
  }
}

function poll() {
  if (!document.hidden && !isRefused && !asking) loadModels();
}

function askForKey(why) {
  if (why) byId("key-why").textContent = why;
  byId("key").value = "";
  byId("key-dialog").showModal();
}

onChoice(() => state.models, () => {
  if (state.answers) say("");
  state.tell("chosen");
  state.tell("changed");
});
byId("key-button").addEventListener("click", () => askForKey(""));
byId("key-dialog").addEventListener("close", () => {
  const dialog = byId("key-dialog");
  // Closed with Escape, nothing is meant to change.
  if (!dialog.returnValue) return;
  setKey(dialog.returnValue === "use" ? byId("key").value.trim() : "");
  dialog.returnValue = "";
  byId("key").value = "";
  byId("key-button").textContent = hasKey() ? "Key given" : "Key";
  loadServer();
  loadModels();
});
state.events.addEventListener("shown", poll);
document.addEventListener("visibilitychange", poll);
setInterval(poll, INTERVAL_MS);
window.addEventListener("hashchange", () => {
  if (location.hash === "#main") return;
  show();
  byId("main").focus();
});

byId("key-button").textContent = hasKey() ? "Key given" : "Key";
startClassify(state);
startNetwork(state);
startServer(state);
// Asks which models there are, too.
show();
loadServer();

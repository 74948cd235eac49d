// The page: its views, the choice of model and version, and the key. The views know of each other only what `state` says.

import { get, hasKey, sentence, setKey } from "/page/api.js";
import { startClassify } from "/page/classify.js";
import { byId, setOptions } from "/page/dom.js";
import { startNetwork } from "/page/network.js";
import { startServer } from "/page/server.js";

const VIEWS = ["classify", "network", "server"];

/** What all views share. `changed` is dispatched on `events` when another model or version is chosen, `pictures` when the
 * pictures are others, `shown` when another view is. */
const state = {
  events: new EventTarget(),
  models: [],
  pictures: [],
  view: "classify",
  choice: () => ({ model: byId("model").value, version: byId("version").value }),
  tell: (name) => state.events.dispatchEvent(new Event(name)),
};

function say(text) {
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

/** Asks which models there are; what is chosen stays chosen as long as it is there. */
async function loadModels() {
  try {
    state.models = (await get("/v1/models")).details;
    say(state.models.some((it) => it.state === "READY") ? "" : "No model is ready. The view Server says why.");
  } catch (error) {
    say(sentence(error));
    if (error.status === 401 && !byId("key-dialog").open) askForKey("This server asks for an API key. Yours stays in this tab and is forgotten when the tab closes.");
    return;
  }
  const before = JSON.stringify(state.choice());
  const ready = state.models.filter((it) => it.state === "READY");
  setOptions(byId("model"), ready.map((it) => [it.name, it.name]));
  setVersions();
  if (JSON.stringify(state.choice()) !== before) state.tell("changed");
}

function setVersions() {
  const versions = state.models.find((it) => it.name === byId("model").value)?.versions ?? [];
  const newest = versions.at(-1);
  setOptions(byId("version"), [
    ...(newest ? [["", `newest (${newest})`]] : []),
    ...versions.map((version) => [version, version]),
  ]);
}

async function loadServer() {
  try {
    byId("server-version").textContent = (await get("/v2")).version;
  } catch {
    // The list of models says what is wrong.
  }
}

function askForKey(why) {
  if (why) byId("key-why").textContent = why;
  byId("key").value = "";
  byId("key-dialog").showModal();
}

byId("model").addEventListener("change", () => {
  byId("version").value = "";
  setVersions();
  state.tell("changed");
});
byId("version").addEventListener("change", () => state.tell("changed"));
byId("choice").addEventListener("submit", (event) => event.preventDefault());
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
state.events.addEventListener("reload", loadModels);
window.addEventListener("hashchange", () => {
  if (location.hash === "#main") return;
  show();
  byId("main").focus();
});

byId("key-button").textContent = hasKey() ? "Key given" : "Key";
startClassify(state);
startNetwork(state);
startServer(state);
show();
loadServer();
await loadModels();

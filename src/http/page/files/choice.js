// Which model and version are chosen, and what becomes of that as they come and go.

import { byId, setOptions } from "/page/dom.js";

/** What was chosen last. */
let last = { model: "", version: "" };
/** What was chosen and is not ready any more, and in words what took its place; until another is chosen or it is back. */
let lost = null;

export const choice = () => ({ model: byId("model").value, version: byId("version").value });

/** Offers the models of the list that are ready. What is chosen stays chosen as long as it is there; what is to be said of that is
 * returned. */
export function offer(models) {
  const ready = models.filter((it) => it.state === "READY");
  const isReady = ({ model, version }) => ready.some((it) => it.name === model && (!version || it.versions.includes(version)));
  setOptions(byId("model"), ready.map((it) => [it.name, it.name]));
  if (isReady({ model: last.model })) byId("model").value = last.model;
  offerVersions(models);
  if (isReady(last)) byId("version").value = last.version;
  const now = choice();
  if (!now.model) return "No model is ready. The view Server says why.";
  if (last.model && !isReady(last)) {
    const words = now.model !== last.model
      ? `The model ${last.model} is not ready any more, so ${now.model} is chosen.`
      : `Version ${last.version} of ${last.model} is not ready any more, so its newest is chosen.`;
    lost = { ...last, words };
  } else if (lost && isReady(lost)) {
    lost = null;
  }
  last = now;
  return lost?.words ?? "";
}

function offerVersions(models) {
  const versions = models.find((it) => it.name === byId("model").value)?.versions ?? [];
  const newest = versions.at(-1);
  setOptions(byId("version"), [
    ...(newest ? [["", `newest (${newest})`]] : []),
    ...versions.map((version) => [version, version]),
  ]);
}

/** Calls `tell` when somebody has chosen another model or version. `models` is the list that is known. */
export function onChoice(models, tell) {
  const chosen = () => {
    lost = null;
    last = choice();
    tell();
  };
  byId("model").addEventListener("change", () => {
    byId("version").value = "";
    offerVersions(models());
    chosen();
  });
  byId("version").addEventListener("change", chosen);
  byId("choice").addEventListener("submit", (event) => event.preventDefault());
}

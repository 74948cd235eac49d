// Which model and version are chosen, and what becomes of that as they come and go.

import { byId, setOptions } from "/page/dom.js";

/** What somebody has chosen, or what was there first. */
let wanted = { model: "", version: "" };
/** Whether that is what is chosen, and ready. */
let isWanted = false;

export const choice = () => ({ model: byId("model").value, version: byId("version").value });

/** Whether what is chosen is ready and is not in the place of another, which somebody has chosen. */
export const stands = () => isWanted;

/** Offers the models of the list that are ready. What is wanted is chosen as long as it is there or is being loaded, and again as soon as it
 * is back; what is to be said of that is returned. */
export function offer(models) {
  const find = (name) => models.find((it) => it.name === name);
  const isReady = ({ model, version }) => find(model)?.state === "READY" && (!version || find(model).versions.includes(version));
  const isLoading = find(wanted.model)?.state === "LOADING";
  const offered = models.filter((it) => it.state === "READY" || (isLoading && it.name === wanted.model));
  setOptions(byId("model"), offered.map((it) => [it.name, it.name]));
  if (offered.some((it) => it.name === wanted.model)) byId("model").value = wanted.model;
  offerVersions(models, isLoading);
  isWanted = isReady(wanted);
  // Another model's versions have nothing to do with the one that was chosen.
  byId("version").value = isWanted || isLoading ? wanted.version : "";
  const { model } = choice();
  if (isLoading) return `The model ${wanted.model} is being loaded.`;
  if (!model) return "No model is ready. The view Server says why.";
  if (!wanted.model) {
    wanted = choice();
    isWanted = true;
  }
  if (isWanted) return "";
  if (model !== wanted.model) return `The model ${wanted.model} is not ready any more, so ${model} is chosen until it is.`;
  return `Version ${wanted.version} of ${model} is not ready any more, so its newest is chosen until it is.`;
}

/** Offers the versions of the model that is chosen; while that is being loaded, those that are wanted of it. */
function offerVersions(models, isLoading = false) {
  const versions = models.find((it) => it.name === byId("model").value)?.versions ?? [];
  const newest = versions.at(-1);
  const coming = isLoading && wanted.version;
  setOptions(byId("version"), [
    ...(newest || isLoading ? [["", newest ? `newest (${newest})` : "newest"]] : []),
    ...versions.map((version) => [version, version]),
    ...(coming ? [[coming, coming]] : []),
  ]);
}

/** Calls `tell` when somebody has chosen another model or version. `models` is the list that is known. */
export function onChoice(models, tell) {
  const chosen = () => {
    wanted = choice();
    isWanted = true;
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

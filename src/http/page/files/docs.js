// The documentation: the server's OpenAPI document, for people.

import { get, sentence } from "/page/api.js";
import { byId, el, prose } from "/page/dom.js";
import { kindOf, resolve, schemaList } from "/page/schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

/** Bodies that the examples send, by what they are. */
const BODIES = [
  ["application/octet-stream", "--data-binary @photo.jpg"],
  ["application/json", "--json '{}'"],
];

function operationsOf(document) {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, ...item[method] })));
}

function show(document) {
  byId("server-version").textContent = document.info.version;
  const operations = operationsOf(document);
  const sections = document.tags.map(({ name, description }) => el(
    "section",
    { "aria-label": name },
    el("h2", { textContent: name }),
    el("p", { className: "quiet", textContent: description }),
    ...operations.filter((it) => it.tags.includes(name)).map((it) => drawn(document, it)),
  ));
  byId("operations").replaceChildren(...sections);
}

function drawn(document, operation) {
  const { method, path, summary, operationId } = operation;
  const details = el(
    "details",
    { className: "operation", id: operationId },
    el("summary", {},
      el("span", { className: `method ${method}`, textContent: method.toUpperCase() }),
      el("code", { textContent: path }),
      el("span", { className: "summary", textContent: summary })),
  );
  details.dataset.text = `${method} ${path} ${summary} ${operation.description ?? ""}`.toLowerCase();
  // Drawn when it is opened: a document has far more in it than anybody reads.
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(bodyOf(document, operation));
  });
  return details;
}

function bodyOf(document, operation) {
  const parts = [];
  if (operation.description) parts.push(el("p", {}, ...prose(operation.description)));
  const scopes = (operation.security ?? []).flatMap((it) => Object.values(it).flat());
  if (scopes.length) parts.push(el("p", { textContent: `Needs an API key with the right ${scopes.join(", ")}.` }));
  if (operation.parameters) parts.push(el("h3", { textContent: "Parameters" }), parameterTable(document, operation.parameters));
  if (operation.requestBody) {
    const wanted = operation.requestBody.required ? "" : ", which may be left out";
    parts.push(el("h3", { textContent: `Body${wanted}` }), ...contents(document, operation.requestBody.content));
  }
  parts.push(el("h3", { textContent: "Answers" }));
  for (const [status, given] of Object.entries(operation.responses)) {
    const answer = resolve(document, given);
    parts.push(el("p", {}, el("span", { className: "status", textContent: status }), " ", ...prose(answer.description)));
    // Refusals all have the one form, which is said once above.
    if (!given.$ref) parts.push(...contents(document, answer.content ?? {}));
  }
  parts.push(el("h3", { textContent: "Example" }), el("pre", { tabIndex: 0 }, el("code", { textContent: example(operation, scopes) })));
  return el("div", { className: "body" }, ...parts);
}

function parameterTable(document, parameters) {
  const rows = parameters.map((given) => {
    const it = resolve(document, given);
    return el("tr", {},
      el("td", {}, el("code", { textContent: it.name })),
      el("td", { className: "quiet", textContent: it.in }),
      el("td", { textContent: kindOf(document, it.schema) + (it.required ? ", required" : "") }),
      el("td", {}, ...prose(it.description ?? "")));
  });
  const heads = ["Name", "In", "Kind", "Meaning"].map((textContent) => el("th", { scope: "col", textContent }));
  return el("div", { className: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}

/** The media types of a body and what each holds. */
function contents(document, content) {
  return Object.entries(content).flatMap(([type, { schema }]) => [
    el("h4", {}, el("code", { textContent: type })),
    ...(schema ? [schemaList(document, schema)] : []),
  ]);
}

/** The operation as a command line. */
function example({ method, path, parameters = [], requestBody }, scopes) {
  const values = { model: "MODEL", version: "1", file: "app.js", layer: "LAYER", unit: "0" };
  const place = path.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? name.toUpperCase());
  const query = parameters.filter((it) => it.in === "query" && it.required).map((it) => `${it.name}=${values[it.name] ?? "…"}`);
  const words = ["curl"];
  if (scopes.length) words.push('-H "authorization: Bearer $KEY"');
  const body = requestBody && BODIES.find(([type]) => requestBody.content[type]);
  if (method === "post") words.push(requestBody?.required && body ? body[1] : "-X POST");
  words.push(`'${location.origin}${place}${query.length ? `?${query.join("&")}` : ""}'`);
  return words.join(" ");
}

/** Leaves only the operations that have every word in them. */
function find() {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const section of byId("operations").children) {
    let any = false;
    for (const details of section.querySelectorAll(".operation")) {
      details.hidden = !words.every((word) => details.dataset.text.includes(word));
      any ||= !details.hidden;
      count += details.hidden ? 0 : 1;
    }
    section.hidden = !any;
  }
  byId("found").textContent = words.length ? `${count} operations` : "";
}

/** Opens the operation that the address names. */
function open() {
  const details = document.getElementById(location.hash.slice(1));
  if (details?.classList.contains("operation")) {
    details.open = true;
    details.scrollIntoView();
  }
}

byId("find").addEventListener("input", find);
window.addEventListener("hashchange", open);
try {
  show(await get("/openapi.json"));
  open();
} catch (error) {
  byId("notice").hidden = false;
  byId("notice").textContent = sentence(error);
}

// What excites a unit of the layer that is looked at: those of the pictures on the page in which it is strongest, each beside what in it
// does that.

import { EXPLAINING, modelPath, post, sentence } from "/page/api.js";
import { byId, el, picture } from "/page/dom.js";
import { number } from "/page/format.js";
import { explanations } from "/page/queue.js";

let state;
let running = null;

export function startExciting(shared) {
  state = shared;
  for (const event of ["layer", "pictures"]) state.events.addEventListener(event, arrange);
  byId("exciting-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) stop();
    else show();
  });
  arrange();
}

/** As many as the server takes in one request, unless it is told otherwise; it says so itself then. */
const MOST = 64;
const MOST_BYTES = 64 * 1024 * 1024;
/** What a picture's name and what divides it from the next take, at most. */
const PART_BYTES = 1024;

/** The pictures that the server can read, as far as they are looked at. */
function pictures() {
  const first = state.readable().slice(0, MOST);
  let bytes = 0;
  // Of a single one the server itself says whether it takes it: it has done so before.
  const over = first.findIndex(({ file }, index) => (bytes += file.size + PART_BYTES) > MOST_BYTES && index > 0);
  return over < 0 ? first : first.slice(0, over);
}

/** What was found is of other pictures or of another layer now. */
function arrange() {
  stop();
  const layer = state.layer();
  const count = pictures().length;
  byId("exciting-title").textContent = layer ? `What excites a unit of ${layer.name}` : "What excites a unit";
  byId("exciting-form").hidden = !layer || !count;
  const channels = layer?.output_shape?.[0];
  byId("exciting-unit").max = channels ? String(channels - 1) : "";
  say(!count ? missing() : layer ? `Among ${among(count)}.` : "Choose a layer.");
}

/** Why there is nothing to look at. */
function missing() {
  if (!state.pictures.length) return "Add pictures in the view Classify first.";
  return "The server can read none of the files on this page. Add pictures in the view Classify.";
}

/** What is looked at. */
function among(count) {
  const all = state.readable().length;
  const most = count < MOST ? "as one request holds, since some are large" : "as are looked at at once";
  if (count < all) return `the first ${count} of the ${all} pictures on this page, which is as many ${most}`;
  return count === 1 ? "the picture on this page" : `the ${count} pictures on this page`;
}

function say(text, className = "quiet") {
  byId("exciting").replaceChildren(el("p", { className, textContent: text }));
}

function stop() {
  running?.abort();
  running = null;
  byId("exciting-button").textContent = "Show";
}

async function show() {
  const { signal } = running = new AbortController();
  const { name: layer } = state.layer();
  const unit = byId("exciting-unit").value;
  const body = new FormData();
  const items = pictures();
  for (const { file } of items) body.append("image", file, file.name);
  byId("exciting-button").textContent = "Stop";
  say("Looking…");
  try {
    const path = `${modelPath(state.choice())}/exciting`;
    const query = { layer, unit, method: byId("exciting-method").value };
    const answer = await explanations.run(() => post(path, body, query, signal, EXPLAINING), signal);
    draw(answer, items);
  } catch (error) {
    if (signal.aborted) return;
    const way = error.status === 413 && items.length > 1 ? " Remove some of the large pictures in the view Classify." : "";
    say(sentence(error) + way, "error");
  }
  running = null;
  byId("exciting-button").textContent = "Show";
}

function draw({ layer, unit, pictures: found, png }, items) {
  if (!found.length) return say(`Unit ${unit} of ${layer} is not above zero in any of the pictures.`);
  const name = ({ index }) => items[index].file.name;
  const [before, after] = [`What unit ${unit} of `, " sees of a picture, beside what of that excites it, the strongest first"];
  byId("exciting").replaceChildren(
    picture(png, `${before}${layer}${after}: ${found.map(name).join(", ")}`),
    el("p", { className: "quiet" }, before, el("bdi", { textContent: layer }), `${after}:`),
    el("ol", { className: "found" }, ...found.map((it) =>
      el("li", {}, el("bdi", { textContent: name(it) }), el("span", { className: "quiet", textContent: ` ${number(it.activation)}` })))),
  );
}

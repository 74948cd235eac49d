// Elements without markup: text only ever becomes a text node, so that no file name or label can be anything else.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Makes an element. `properties` are set on it, `data-` and `aria-` ones as attributes; `children` are elements or texts. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A text in which what stands between backticks is code, as the document's sentences have it. */
export const prose = (text) =>
  text.replaceAll("\n", " ").split("`").map((part, index) => (index % 2 ? el("code", { textContent: part }) : part));

/** Makes an element of an SVG picture. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Makes options of `[value, text]` pairs the choices of a select, and keeps what is chosen where it is still there. Those that are
 * there already are left alone: a list that somebody has opened would close. */
export function setOptions(select, pairs) {
  const isThere = ([value, text], index) => select.options[index]?.value === value && select.options[index].textContent === text;
  if (select.options.length === pairs.length && pairs.every(isThere)) return;
  const chosen = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, textContent: text })));
  if (pairs.some(([value]) => value === chosen)) select.value = chosen;
}

/** Replaces what is in `place`. Whoever is in there with the keyboard is in what comes, in what of it can be, or at `place` itself. */
export function replaceKeepingFocus(place, ...children) {
  const wasInside = place.contains(document.activeElement);
  place.replaceChildren(...children);
  if (!wasInside) return;
  place.tabIndex = -1;
  (place.querySelector("button, [tabindex='0']") ?? place).focus();
}

/** A part of a whole as a coloured stretch. */
export function fill(share) {
  const stretch = el("span", { className: "fill", "aria-hidden": "true" });
  stretch.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return stretch;
}

/** The picture of a base64 PNG. */
export const picture = (png, alt) => el("img", { src: `data:image/png;base64,${png}`, alt });

// A picture on a canvas, and what explains it painted over it.

import { el, picture as pictureOf } from "/page/dom.js";
import { isClear, opaque } from "/page/opaque.js";

/** The longest side of a canvas in pixels: sharp on a phone's screen, and small enough for many pictures. */
const LONGEST = 960;

/** From little to much: blue, cyan, green, yellow, red, as the legend has them. */
const STOPS = [[43, 63, 208], [25, 181, 201], [127, 211, 78], [245, 211, 39], [227, 57, 31]];

/** The colour of a value from 0 to 1. */
function colour(value) {
  const place = value * (STOPS.length - 1);
  const below = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[below].map((it, channel) => it + (STOPS[below + 1][channel] - it) * (place - below));
}

/** A heatmap as a small canvas: what is not above zero is clear, and the rest the less clear the larger it is. */
export function heatmapCanvas({ shape: [height, width], data }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const largest = data.reduce((most, value) => Math.max(most, value), 0);
  data.forEach((value, index) => {
    const share = largest > 0 ? Math.max(0, value) / largest : 0;
    pixels.data.set([...colour(share), 255 * Math.min(1, 1.6 * share)], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** How many times the contrast of a projection is raised at most: it comes with eight bits. */
const MOST_CONTRAST = 8;

/** A projection as a canvas. The server scales it to its largest value, beside which all else can be faint, so here all but the
 * strongest hundredth is scaled. What is gray, and so nothing, covers the picture in half. */
export function projectionCanvas(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const { data } = pixels;
  const magnitudes = new Uint8Array(data.length / 4).map((_, index) =>
    Math.max(...[0, 1, 2].map((channel) => Math.abs(data[4 * index + channel] - 128))));
  const strong = magnitudes.toSorted()[Math.floor(0.99 * magnitudes.length)];
  const contrast = Math.max(1, Math.min(MOST_CONTRAST, 128 / Math.max(1, strong)));
  magnitudes.forEach((magnitude, index) => {
    for (const at of [0, 1, 2].map((channel) => 4 * index + channel)) data[at] = 128 + contrast * (data[at] - 128);
    data[4 * index + 3] = 255 * (0.5 + 0.5 * Math.min(1, (2 * contrast * magnitude) / 128));
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Where in what is shown of the picture a heatmap of its `frame` is strongest, in words. */
export function strongestPlace({ shape: [height, width], data }, frame) {
  const at = data.reduce((best, value, index) => (value > data[best] ? index : best), 0);
  if (!(data[at] > 0)) return "nowhere";
  const part = partOf(frame);
  // What a recipe pads lies outside the picture.
  const third = (place, size) => Math.max(0, Math.min(2, Math.floor((3 * place) / size)));
  const y = frame.y + ((Math.floor(at / width) + 0.5) * frame.height) / height - part.y;
  const x = frame.x + (((at % width) + 0.5) * frame.width) / width - part.x;
  const row = ["top", "middle", "bottom"][third(y, part.height)];
  const column = ["left", "middle", "right"][third(x, part.width)];
  if (row === "middle" && column === "middle") return "in the middle";
  return row === "middle" ? `in the middle of the ${column}` : column === "middle" ? `in the middle of the ${row}` : `at the ${row} ${column}`;
}

/** The shorter side of what the network sees is at least this many pixels of the canvas; where it would be less, it is shown alone. */
const LEAST_SHOWN = 16;

/** What of the picture is shown when what the network sees of it, its `frame`, is explained: that alone, or the whole. */
function partOf(frame) {
  const { picture_width: width, picture_height: height } = frame;
  const longer = Math.max(width, height);
  const shown = Math.min(frame.width, frame.height) * Math.min(1, LONGEST / longer);
  return shown < Math.min(LEAST_SHOWN, longer / 2) ? frame : { x: 0, y: 0, width, height };
}

export class PictureView {
  #bitmap = null;
  #overlay = null;
  /** What of the picture is shown where that is not all of it: it takes a shape that leaves something to be seen. */
  #part = null;
  #opacity = 0.6;
  /** Whether the browser knows the file's format, as far as that is known. */
  canShow = true;

  constructor(file) {
    this.name = file.name;
    this.canvas = el("canvas", { role: "img", "aria-label": file.name });
    this.element = el("div", { className: "view" }, this.canvas);
    this.size = el("span", { className: "quiet" });
    this.loaded = this.#load(file);
  }

  async #load(file) {
    try {
      this.#bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" });
    } catch {
      // A format that the browser does not know, TIFF for instance, may be one that the server does.
      this.canShow = false;
      this.clear();
      return;
    }
    const { width, height } = this.#bitmap;
    this.#fit();
    this.size.textContent = `${width} × ${height}`;
    this.#paint();
    if (file.type === "image/jpeg" || !isClear(this.canvas)) return;
    const bitmap = this.#bitmap;
    const pixels = await opaque(bitmap);
    // It may have been removed meanwhile.
    if (this.#bitmap !== bitmap || pixels === bitmap) return;
    bitmap.close();
    this.#bitmap = pixels;
    this.#paint();
  }

  /** Gives the canvas the shape of what is shown. */
  #fit() {
    // A part has the shape that the network sees it in, as what is painted over it: a long picture may be squeezed into its input.
    const { width, height } = this.#part ? this.#overlay.picture : this.#bitmap;
    const longest = this.#part ? LONGEST / 2 : Math.min(LONGEST, Math.max(width, height));
    const scale = longest / Math.max(width, height);
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
  }

  #paint() {
    if (!this.#bitmap) return;
    const { width, height } = this.canvas;
    const part = this.#part ?? { x: 0, y: 0, width: this.#bitmap.width, height: this.#bitmap.height };
    const context = this.canvas.getContext("2d");
    context.globalAlpha = 1;
    context.clearRect(0, 0, width, height);
    context.drawImage(this.#bitmap, part.x, part.y, part.width, part.height, 0, 0, width, height);
    if (!this.#overlay) return;
    const { picture, frame } = this.#overlay;
    const [x, y] = [width / part.width, height / part.height];
    context.globalAlpha = this.#opacity;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, (frame.x - part.x) * x, (frame.y - part.y) * y, frame.width * x, frame.height * y);
  }

  /** Shows `part` alone, or without one the whole. */
  #cut(part) {
    if (this.#part === part) return;
    this.#part = part;
    if (this.#bitmap) this.#fit();
  }

  /** Paints `picture` over the part of the picture that `frame` is; `label` says to those who don't see it what is shown. */
  show(picture, frame, label) {
    this.#overlay = { picture, frame };
    const part = partOf(frame);
    this.#cut(part === frame ? part : null);
    this.canvas.setAttribute("aria-label", `${this.name}. ${label}`);
    this.#paint();
  }

  /** Shows a PNG of the server's, in base64, in the place of a file that the browser cannot show. */
  showInstead(png, label) {
    this.element.replaceChildren(pictureOf(png, `${this.name}. ${label}`));
  }

  /** How much of the picture what is painted over covers, 0 to 1. */
  setOpacity(opacity) {
    this.#opacity = opacity;
    this.#paint();
  }

  /** Takes away what is painted over. */
  clear() {
    if (!this.canShow) {
      this.element.replaceChildren(el("p", { className: "unknown quiet", textContent: "This browser cannot show the file." }));
      return;
    }
    this.#overlay = null;
    this.#cut(null);
    this.canvas.setAttribute("aria-label", this.name);
    this.#paint();
  }

  close() {
    this.#bitmap?.close?.();
    this.#bitmap = null;
  }
}

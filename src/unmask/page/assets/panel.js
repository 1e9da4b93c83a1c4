// The row of pictures of one run: masked, rebuilt, pasted, original and error.

import { put } from "./elements.js";
import { errors, heat, imageData } from "./pixels.js";

const VIEWS = ["masked", "rebuilt", "pasted", "original", "error"];
const ABOUT = {
  masked: "what the encoder sees",
  rebuilt: "the decoder's picture of all patches",
  pasted: "visible patches as they were",
  original: "",
  error: "of hidden pixels: black 0, white half of the range",
};

export class Panel {
  constructor(entry, parent) {
    this.section = document.createElement("section");
    this.section.setAttribute("aria-label", `run ${entry.name}`);
    const title = this.add("h2", entry.name), facts = this.add("p", entry.about);
    facts.className = "facts";
    title.dataset.run = entry.name;
    const row = this.row = this.add("div");
    row.className = "pictures";
    this.canvases = {};
    for (const view of VIEWS) {
      const figure = document.createElement("figure"), stack = document.createElement("div");
      const canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
      stack.className = "stack";
      canvas.dataset.view = view;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${view}, run ${entry.name}`);
      caption.textContent = ABOUT[view] ? `${view}: ${ABOUT[view]}` : view;
      stack.append(canvas);
      figure.append(stack, caption);
      row.append(figure);
      this.canvases[view] = canvas;
    }
    this.numbers = this.add("p", "loading …");
    this.numbers.className = "numbers";
    parent.append(this.section);
  }

  add(tag, text = "") {
    const element = document.createElement(tag);
    element.textContent = text;
    this.section.append(element);
    return element;
  }

  // A transparent canvas above the masked picture, to paint on.
  paintable() {
    const canvas = document.createElement("canvas");
    canvas.className = "paint";
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "Patches to hide: arrow keys move, Space hides or shows a patch");
    this.canvases.masked.parentElement.append(canvas);
    return canvas;
  }

  // What the numbers say while there is no picture, or none yet.
  say(text) {
    this.numbers.className = "numbers";
    this.numbers.textContent = text;
    this.section.dataset.state = "said";
  }

  // No pictures, and why.
  clear(text) {
    this.row.hidden = true;
    this.say(text);
  }

  put(view, data) {
    put(this.canvases[view], data);
  }

  // What needs no model: at once, while painting. The rest belongs to another mask and goes.
  showMask(image, mask, model, bands) {
    this.row.hidden = false;
    this.numbers.className = "numbers";
    this.numbers.textContent = "rebuilding …";
    this.section.dataset.state = "working";
    for (const view of ["rebuilt", "pasted", "error"]) {
      Object.assign(this.canvases[view], { width: image.width, height: image.height }); // which also blanks it
    }
    const hidden = this.hiddenPixels(image, mask, model);
    const middle = (channel) => (model.low[channel] + model.high[channel]) / 2;
    this.put("masked", imageData(image, bands, model, (value, i, channel) => (hidden(i) ? middle(channel) : value)));
    this.put("original", imageData(image, bands, model));
  }

  showRebuilt(image, rebuilt, mask, model, bands, { levels, took }) {
    const hidden = this.hiddenPixels(image, mask, model), area = image.height * image.width;
    this.put("rebuilt", imageData(rebuilt, bands, model));
    const own = (value, i, channel) => (hidden(i) ? rebuilt.values[channel * area + i] : value);
    this.put("pasted", imageData(image, bands, model, own));
    const { map, level } = errors(rebuilt, image, hidden, model);
    this.put("error", heat(map, image.height, image.width));
    const count = mask.filter(Boolean).length;
    this.numbers.className = "numbers";
    this.numbers.textContent = `${count} of ${mask.length} patches hidden, error ${level.toFixed(2)} of 255 on hidden pixels, ${Math.round(took)} ms`;
    if (levels === "true" && model.normalized_patches) {
      const warning = document.createElement("span");
      warning.className = "cheating";
      warning.textContent = " Levels are the true ones, read from the hidden pixels.";
      this.numbers.append(warning);
    }
    this.section.dataset.state = "shown";
  }

  hiddenPixels(image, mask, model) {
    const side = model.patch_size, columns = image.width / side;
    return (i) => mask[Math.floor(Math.floor(i / image.width) / side) * columns + Math.floor((i % image.width) / side)];
  }
}

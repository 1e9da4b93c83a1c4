// The tab of segmentations: the class of each pixel, from windows that slide over a picture as in Python.

import { element, labelOf, put } from "./elements.js";
import { MOST_MEGAPIXELS, MOST_SIDE } from "./files.js";
import { between, imageData } from "./pixels.js";

const OPACITY = 0.55; // of the colours, as `unmask predict` draws them
const NOWHERE = 0xffff; // in a class map: no value there in any band

let opacity = OPACITY;
let showOpacity = () => {};

export const segmentation = {
  name: "segmentation",
  title: "Segmentation",
  about: "See which class a fine-tuned segmentation gives each pixel of a picture.",

  help: ([{ most_windows: windows, most_values: values }]) =>
    `A picture is resized as by unmask predict, then looked at in overlapping windows: at most ${windows}, and ${values / 2 ** 18} MiB of scores. ` +
    `A file of your own may have ${MOST_MEGAPIXELS} megapixels; with a side above ${MOST_SIDE} pixels it is made smaller first.`,

  controls(form, panel, changed) {
    const fieldset = element("fieldset"), slider = element("input"), shown = element("span");
    shown.setAttribute("aria-hidden", "true"); // the slider says its value itself
    Object.assign(slider, { id: "segmentation-opacity", type: "range", min: 0, max: 1, step: 0.05 });
    const label = labelOf(slider, "Opacity of the colours ");
    label.append(shown);
    fieldset.append(element("legend", "Display"), label, slider);
    form.append(fieldset);
    showOpacity = () => {
      slider.value = opacity;
      shown.textContent = Number(opacity).toFixed(2);
      panel.style.setProperty("--opacity", opacity);
    };
    slider.oninput = () => { opacity = Number(slider.value); showOpacity(); changed(); };
    showOpacity();
  },

  link: () => (opacity === OPACITY ? {} : { opacity }),

  follow(link) {
    const asked = Number(link.opacity);
    opacity = link.opacity !== undefined && asked >= 0 && asked <= 1 ? asked : OPACITY;
    showOpacity();
  },

  check(model, entry, size) {
    const windows = corners(size, model, entry.step).length;
    const values = model.classes.length * Math.max(size[0], model.height) * Math.max(size[1], model.width);
    const taken = windows > entry.most_windows ? `${windows} windows` : `${Math.ceil(values / 2 ** 18)} MiB of scores`;
    const most = windows > entry.most_windows ? `${entry.most_windows} windows` : `${entry.most_values / 2 ** 18} MiB`;
    if (windows > entry.most_windows || values > entry.most_values) {
      throw new Error(`${entry.name} would take ${taken} for this picture, and the page takes at most ${most}; cut out a part of it`);
    }
  },

  // The mean score, over all windows that contain a pixel, of each class there.
  async compute(section, model, image, isCurrent) {
    const whole = padded(image, model), places = corners([image.height, image.width], model, section.entry.step);
    const area = whole.height * whole.width, count = model.classes.length;
    const sums = new Float32Array(count * area), windows = new Float32Array(area);
    for (const [n, [top, left]] of places.entries()) {
      if (places.length > 1) {
        section.numbers.textContent = `computing … window ${n + 1} of ${places.length}`;
        await new Promise((go) => setTimeout(go)); // so that the page shows it, and another picture can be chosen
      }
      if (!isCurrent()) return null;
      const { scores } = await model.run(windowOf(whole, top, left, model)), { data } = scores;
      for (let k = 0; k < count; k++) {
        for (let y = 0; y < model.height; y++) {
          const from = (k * model.height + y) * model.width, to = (top + y) * whole.width + left;
          for (let x = 0; x < model.width; x++) {
            sums[k * area + to + x] += data[from + x];
            if (k === 0) windows[to + x] += 1;
          }
        }
      }
    }
    for (let k = 0; k < count; k++) {
      for (let i = 0; i < area; i++) sums[k * area + i] /= windows[i];
    }
    section.work = `${places.length} window${places.length > 1 ? "s" : ""} of ${model.height} x ${model.width} pixels`;
    return { scores: sums, columns: whole.width, area };
  },

  async show(section, model, outputs, image, isCurrent) {
    const size = shownSize(image), map = await classMap(outputs, model.classes.length, image, size, isCurrent);
    if (!map) return;
    const { order, shares } = sharesOf(map, model.classes.length);
    const said = order.map((k) => `${model.classes[k]} ${Math.round(100 * shares[k])} %`);
    const figure = element("figure"), stack = element("div", "", "stack"), under = element("canvas"), over = element("canvas", "", "map");
    under.dataset.view = "under";
    over.dataset.view = "map";
    for (const canvas of [under, over]) canvas.setAttribute("role", "img");
    under.setAttribute("aria-label", "the picture under the class map");
    over.setAttribute("aria-label", `class map by ${section.entry.name}: ${said.join(", ")}`);
    put(under, imageData(image, image.channels >= 3 ? [0, 1, 2] : [0], model));
    section.unticked ??= new Set(); // classes whose colours are not shown, also in the next picture
    const paint = () => put(over, coloured(map, size, section.entry.colors, section.unticked));
    paint();
    stack.append(under, over);
    figure.append(stack, element("figcaption", `class of each pixel, ${size[0]} x ${size[1]}`));
    const words = element("div");
    words.append(element("p", said.slice(0, 3).join(", ") || "no pixel has a value", "verdict"), legend(section, model, order, shares, paint));
    const absent = model.classes.length - order.length;
    if (absent) words.append(element("p", `${absent} other class${absent > 1 ? "es" : ""} nowhere in this picture`, "facts"));
    section.answer.append(figure, words);
  },
};

// Colour, name and share of each class that occurs; its box shows and hides its colour.
function legend(section, model, order, shares, paint) {
  const table = element("table"), body = element("tbody");
  table.append(element("caption", "share of the pixels; a box shows or hides the colour"));
  for (const k of order) {
    const row = element("tr"), heading = element("th"), label = element("label", "", "swatched"), box = element("input");
    const swatch = element("span", "", "swatch"), share = element("td", `${(100 * shares[k]).toFixed(1)} %`);
    Object.assign(box, { type: "checkbox", checked: !section.unticked.has(k) });
    box.onchange = () => { section.unticked[box.checked ? "delete" : "add"](k); paint(); };
    swatch.style.backgroundColor = `rgb(${section.entry.colors[k]})`;
    heading.scope = "row";
    label.append(box, swatch, model.classes[k]);
    heading.append(label);
    share.dataset.value = String(shares[k]);
    row.append(heading, share);
    body.append(row);
  }
  table.append(body);
  return table;
}

// Top and left of each window, row by row; the last of a row or column ends at the border.
export function corners(size, { height, width }, step) {
  const [tops, lefts] = [height, width].map((side, axis) => {
    const last = Math.max(0, size[axis] - side), starts = [];
    for (let start = 0; start < last; start += step[axis]) starts.push(start);
    return [...starts, last];
  });
  return tops.flatMap((top) => lefts.map((left) => [top, left]));
}

// At least as large as a window; what is added at the right and at the bottom is missing.
function padded(image, model) {
  const height = Math.max(image.height, model.height), width = Math.max(image.width, model.width);
  if (height === image.height && width === image.width) return image;
  const values = new Float32Array(image.channels * height * width).fill(NaN);
  for (let row = 0; row < image.channels * image.height; row++) {
    const channel = Math.floor(row / image.height), from = row * image.width;
    values.set(image.values.subarray(from, from + image.width), (channel * height + (row % image.height)) * width);
  }
  return { ...image, height, width, values };
}

function windowOf({ channels, height, width, values }, top, left, model) {
  const cut = { channels, height: model.height, width: model.width, values: new Float32Array(channels * model.height * model.width) };
  for (let channel = 0; channel < channels; channel++) {
    for (let y = 0; y < cut.height; y++) {
      const from = (channel * height + top + y) * width + left;
      cut.values.set(values.subarray(from, from + cut.width), (channel * cut.height + y) * cut.width);
    }
  }
  return cut;
}

// The picture's own size, if a canvas should have so many pixels.
function shownSize({ whole }) {
  const scale = Math.min(1, MOST_SIDE / Math.max(...whole));
  return whole.map((side) => Math.max(1, Math.round(side * scale)));
}

// The class with the highest score at each pixel of a size, to which scores are resized, a row at a time; null if another
// picture was chosen in between.
async function classMap({ scores, columns, area }, count, image, [height, width], isCurrent) {
  const down = between(image.height, height), across = between(image.width, width);
  const [left, right] = [0, 1].map((side) => Int32Array.from(across, (place) => place[side]));
  const shares = Float32Array.from(across, ([, , share]) => share), line = new Float32Array(image.width);
  const map = new Uint16Array(height * width), best = new Float32Array(width);
  for (let y = 0; y < height; y++) {
    const [above, below, share] = down[y], row = map.subarray(y * width, (y + 1) * width);
    if (y % 64 === 63) await new Promise((go) => setTimeout(go)); // so that another picture can be chosen
    if (!isCurrent()) return null;
    best.fill(-Infinity);
    for (let k = 0; k < count; k++) {
      const [first, second] = [above, below].map((one) => k * area + one * columns);
      for (let x = 0; x < image.width; x++) line[x] = scores[first + x] + share * (scores[second + x] - scores[first + x]);
      for (let x = 0; x < width; x++) {
        const value = line[left[x]] + shares[x] * (line[right[x]] - line[left[x]]);
        if (value > best[x]) { best[x] = value; row[x] = k; }
      }
    }
  }
  leaveOutMissing(map, image, [height, width]);
  return map;
}

// Pixels without a value in any band have no class, as in the files of `unmask predict`.
function leaveOutMissing(map, { channels, height, width, values }, size) {
  const area = height * width;
  for (let i = 0; i < map.length; i++) {
    const y = Math.floor(((Math.floor(i / size[1]) + 0.5) * height) / size[0]);
    const place = y * width + Math.floor((((i % size[1]) + 0.5) * width) / size[1]);
    let channel = 0;
    while (channel < channels && Number.isNaN(values[channel * area + place])) channel += 1;
    if (channel === channels) map[i] = NOWHERE;
  }
}

// Of the pixels with a class the share of each, and the classes that occur, the most frequent first.
function sharesOf(map, count) {
  const counts = new Float64Array(count);
  let known = 0;
  for (const k of map) {
    if (k !== NOWHERE) { counts[k] += 1; known += 1; }
  }
  const shares = counts.map((one) => one / Math.max(1, known));
  const order = [...shares.keys()].filter((k) => shares[k] > 0).sort((a, b) => shares[b] - shares[a] || a - b);
  return { order, shares };
}

// Opaque colours, and nothing where no class is shown.
function coloured(map, [height, width], colors, unticked) {
  const data = new ImageData(width, height), pixels = new Uint32Array(data.data.buffer);
  const color = new Uint32Array(NOWHERE + 1), bytes = new Uint8Array(color.buffer);
  colors.forEach((one, k) => { if (!unticked.has(k)) bytes.set([...one, 255], 4 * k); });
  for (let i = 0; i < map.length; i++) pixels[i] = color[map[i]];
  return data;
}

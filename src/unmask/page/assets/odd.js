// The tab of memories of normal images: the distance of each patch to them as heat, and the score beside the threshold.

import { element, put } from "./elements.js";
import { between, imageData } from "./pixels.js";

const OPAQUE = 0.75; // of the hottest places
// transparent, yellow, orange, red, dark red: the colours of `unmask odd`
const COLOURS = [[1, 1, 0.6], [1, 0.8, 0.1], [1, 0.45, 0], [0.85, 0, 0.05], [0.5, 0, 0.15]];

export const odd = {
  name: "odd",
  title: "Odd",
  about: "See where a picture differs from normal ones, and whether it is odd.",

  show(section, model, outputs, image) {
    const { grid, counted, threshold, alarms, held_out: heldOut, heat: [low, high] } = section.entry;
    const distances = outputs.distances.data;
    const score = [...distances].sort((a, b) => b - a).slice(0, counted).reduce((sum, one) => sum + one, 0) / counted;
    const range = 2 * Math.max(high - low, 1e-12);
    const heat = stretched(distances, grid, image).map((one) => Math.min(1, Math.max(0, (one - low) / range)));
    const canvas = element("canvas"), figure = element("figure");
    canvas.dataset.view = "heat";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `distance from normal, by ${section.entry.name}`);
    put(canvas, heated(imageData(image, image.channels >= 3 ? [0, 1, 2] : [0], model), heat));
    figure.append(canvas, element("figcaption", "distance from normal: colours begin where one normal patch in twenty lies; one in a thousand reaches orange-red"));
    const verdict = element("p", score > threshold ? "odd" : "normal", "verdict");
    const numbers = element("p", `score ${score.toFixed(3)}, threshold ${threshold.toFixed(3)}`);
    numbers.dataset.value = String(score);
    const bar = element("meter");
    Object.assign(bar, { min: 0, max: Math.max(score, 1.5 * threshold), low: threshold, optimum: 0, value: score });
    bar.setAttribute("aria-hidden", "true"); // the numbers are beside it
    const share = `by ${heldOut} held-out normal images, at most ${Math.round(100 * alarms)} % of normal images lie above the threshold`;
    const words = element("div");
    words.append(verdict, numbers, bar, element("p", share, "facts"));
    section.answer.append(figure, words);
  },
};

// Distances of patches, interpolated to the size of the picture.
export function stretched(distances, [rows, columns], { height, width }) {
  const [down, across] = [between(rows, height), between(columns, width)];
  const map = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    const [top, bottom, low] = down[y];
    for (let x = 0; x < width; x++) {
      const [left, right, far] = across[x];
      const at = (row) => (1 - far) * distances[row * columns + left] + far * distances[row * columns + right];
      map[y * width + x] = (1 - low) * at(top) + low * at(bottom);
    }
  }
  return map;
}

// A picture in grey under heat from 0, which is not drawn, to 1.
function heated(data, heat) {
  heat.forEach((value, i) => {
    const grey = (data.data[4 * i] + data.data[4 * i + 1] + data.data[4 * i + 2]) / 3;
    const place = value * (COLOURS.length - 1), below = Math.min(COLOURS.length - 2, Math.floor(place)), share = place - below;
    const opaque = Math.min(1, 2 * value) * OPAQUE;
    for (let colour = 0; colour < 3; colour++) {
      const painted = (1 - share) * COLOURS[below][colour] + share * COLOURS[below + 1][colour];
      data.data[4 * i + colour] = Math.round(opaque * 255 * painted + (1 - opaque) * grey);
    }
  });
  return data;
}

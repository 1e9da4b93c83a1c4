// The tab of folders of vectors: the pictures whose vectors are nearest to that of the chosen one.

import { element } from "./elements.js";
import { fetched } from "./model.js";

const MOST = 12; // neighbours that are shown

export const neighbours = {
  name: "neighbours",
  title: "Neighbours",
  about: "See which pictures of a folder are most like another one, by cosine similarity.",

  async prepare(section, model, { files }) {
    section.pictures = await json(files["pictures.json"]);
    const bytes = await fetched(files["vectors.bin"]), rows = section.pictures.name.length;
    if (bytes.length !== 4 * rows * section.pictures.width) throw incomplete(files["vectors.bin"]);
    section.vectors = new Float32Array(bytes.buffer);
    section.sheets = new Map(); // by number, once one of their thumbnails was shown
  },

  async show(section, model, { vector }) {
    const { pictures, vectors, entry, answer } = section;
    const scores = products(vectors, vector.data);
    const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b).slice(0, MOST);
    const sheetOf = (i) => Math.floor(i / (pictures.columns * pictures.rows));
    await Promise.all([...new Set(order.map(sheetOf))].map(async (sheet) => {
      if (section.sheets.has(sheet)) return;
      try {
        const bytes = await fetched(entry.files[`thumbnails-${sheet}.jpg`]);
        section.sheets.set(sheet, await createImageBitmap(new Blob([bytes])));
      } catch {
        section.sheets.set(sheet, null); // names and scores are there without it
      }
    }));
    const list = element("ol", "", "neighbours");
    for (const i of order) list.append(neighbour(pictures, i, scores[i], section.sheets.get(sheetOf(i))));
    answer.append(list);
  },
};

const incomplete = (file) => new Error(`${file} is incomplete; write the page again`);

async function json(file) {
  const text = new TextDecoder().decode(await fetched(file));
  try {
    return JSON.parse(text);
  } catch {
    throw incomplete(file);
  }
}

// The dot product of a vector with each row of a matrix.
function products(matrix, vector) {
  const width = vector.length;
  return Array.from({ length: matrix.length / width }, (_, row) => {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += matrix[row * width + k] * vector[k];
    return sum;
  });
}

function neighbour(pictures, i, score, sheet) {
  const [height, width] = pictures.tile, place = i % (pictures.columns * pictures.rows);
  const item = element("li"), canvas = element("canvas"), name = pictures.name[i];
  Object.assign(canvas, { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  const [left, top] = [(place % pictures.columns) * width, Math.floor(place / pictures.columns) * height];
  const context = canvas.getContext("2d");
  context.fillStyle = "#808080"; // where the thumbnails cannot be read
  if (sheet) context.drawImage(sheet, left, top, width, height, 0, 0, width, height);
  else context.fillRect(0, 0, width, height);
  const label = [pictures.label[i] ?? []].flat().join(", ");
  const words = element("span", `${score.toFixed(3)}${label ? ` ${label}` : ""}`);
  item.dataset.value = String(score);
  item.dataset.name = name;
  item.append(canvas, words, element("span", name, "facts"));
  return item;
}

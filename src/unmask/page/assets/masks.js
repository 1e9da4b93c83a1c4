// Which patches are hidden: drawn as Python draws them, painted, or carried over to another grid.
// A mask is an array of booleans, row by row; true means hidden. A grid is {rows, columns}.

import { Generator, generatorOf } from "./random.js";

const TRIES = 10;
const SMALLEST_ASPECT = 0.3;
const SMALLEST_BLOCK = 16 / 196;

export const size = (grid) => grid.rows * grid.columns;

// Masking of `unmask.reconstruct(run, picture, masking=kind, ratio=ratio, seed=seed)`.
export function draw(kind, grid, { ratio, stride, seed }) {
  if (kind === "grid") return gridMask(grid, stride);
  const generator = generatorOf(seed);
  return kind === "block" ? blockMask(grid, ratio, generator) : randomMask(grid, ratio, generator);
}

// How many patches stay visible; at least one is hidden and one is not.
export function keptOf(patches, ratio) {
  return Math.min(patches - 1, Math.max(1, Math.trunc(patches * (1 - ratio))));
}

function randomMask(grid, ratio, generator) {
  const patches = size(grid);
  const noise = generator.rand(patches);
  const order = noise.map((_, i) => i).sort((a, b) => noise[a] - noise[b] || a - b);
  const mask = new Array(patches).fill(true);
  for (const kept of order.slice(0, keptOf(patches, ratio))) mask[kept] = false;
  return mask;
}

function gridMask(grid, stride) {
  const place = (i) => [Math.floor(i / grid.columns), i % grid.columns];
  return Array.from({ length: size(grid) }, (_, i) => place(i).some((one) => one % stride !== 0));
}

function blockMask(grid, ratio, outer) {
  const patches = size(grid);
  const count = patches - keptOf(patches, ratio);
  const generator = new Generator(outer.randint62());
  const smallest = SMALLEST_BLOCK * patches;
  let mask, placed;
  for (let attempt = 0; attempt < TRIES; attempt++) {
    mask = new Array(patches).fill(false);
    placed = placeBlocks(mask, grid, count, smallest, generator);
    if (2 * placed >= count) break;
  }
  const visible = mask.map((_, i) => i).filter((i) => !mask[i]);
  for (const extra of generator.randperm(visible.length).slice(0, count - placed)) {
    mask[visible[extra]] = true;
  }
  return mask;
}

function placeBlocks(mask, grid, count, smallest, generator) {
  let placed = 0;
  while (placed < count) {
    const more = placeBlock(mask, grid, count - placed, smallest, generator);
    if (more === 0) break;
    placed += more;
  }
  return placed;
}

function placeBlock(mask, grid, room, smallest, generator) {
  const logAspect = Math.log(SMALLEST_ASPECT);
  const draws = generator.rand(4 * TRIES);
  for (let i = 0; i < draws.length; i += 4) {
    const area = smallest + draws[i] * (room - smallest);
    const aspect = Math.exp(logAspect - 2 * logAspect * draws[i + 1]);
    const rows = Math.round(Math.sqrt(area * aspect)), columns = Math.round(Math.sqrt(area / aspect));
    if (!(rows > 0 && rows < grid.rows && columns > 0 && columns < grid.columns)) continue;
    const top = Math.trunc(draws[i + 2] * (grid.rows - rows + 1));
    const left = Math.trunc(draws[i + 3] * (grid.columns - columns + 1));
    const block = [];
    for (let row = top; row < top + rows; row++) {
      for (let column = left; column < left + columns; column++) block.push(row * grid.columns + column);
    }
    const fresh = block.filter((index) => !mask[index]);
    if (fresh.length > 0 && fresh.length <= room) {
      for (const index of fresh) mask[index] = true;
      return fresh.length;
    }
  }
  return 0;
}

// The same region on another grid: a patch is hidden if at least half of it is.
export function carried(mask, from, to) {
  if (from.rows === to.rows && from.columns === to.columns) return mask;
  const shares = (n, m) => Array.from({ length: m }, (_, i) => {
    const [start, end] = [(i * n) / m, ((i + 1) * n) / m];
    const parts = [];
    for (let k = Math.floor(start); k < Math.ceil(end - 1e-9); k++) {
      parts.push([k, (Math.min(end, k + 1) - Math.max(start, k)) / (end - start)]);
    }
    return parts;
  });
  const rows = shares(from.rows, to.rows), columns = shares(from.columns, to.columns);
  return Array.from({ length: size(to) }, (_, i) => {
    let share = 0;
    for (const [row, high] of rows[Math.floor(i / to.columns)]) {
      for (const [column, wide] of columns[i % to.columns]) {
        if (mask[row * from.columns + column]) share += high * wide;
      }
    }
    return share >= 0.5 - 1e-9;
  });
}

// A mask as text for a link: its bits, as base64 that may stand in an address.
export function written(mask) {
  const bytes = new Uint8Array(Math.ceil(mask.length / 8));
  mask.forEach((hidden, i) => { if (hidden) bytes[i >> 3] |= 128 >> (i & 7); });
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// The mask of a text; null if it is not for this many patches.
export function read(text, patches) {
  try {
    const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    if (bytes.length !== Math.ceil(patches / 8)) return null;
    return Array.from({ length: patches }, (_, i) => ((bytes.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1) === 1);
  } catch {
    return null;
  }
}

// Pictures that a user brings: what the browser decodes, and .npy arrays for any number of bands.

import { picture } from "./pixels.js";

export const MOST_MEGAPIXELS = 100; // decoded, four bytes each, and more while it is resized
export const MOST_SIDE = 4096; // larger pictures are made smaller while they are decoded

// The picture in the units of a model.
async function opened(file, model) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes.length === 0) throw new Error(`${file.name} is empty`);
  if (text(bytes, 1, 6) === "NUMPY") return array(file.name, bytes, model);
  if (model.values !== "uint8" || ![1, 3].includes(model.channels)) {
    throw new Error(
      `${file.name}: this model takes ${model.channels} bands of ${model.values}; save them as a .npy array [bands, height, width]`,
    );
  }
  checkSize(file.name, pixelsOf(bytes));
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes]));
  } catch {
    throw new Error(`${file.name} is not a picture that this browser can read; PNG, JPEG and WebP work, and .npy for arrays`);
  }
  checkSize(file.name, bitmap.width * bitmap.height); // of formats whose header is not read above, such as AVIF
  return fromBitmap(bitmap, model.channels);
}

// A file for each of some models, decoded once for all with the same channels and values; the error where a model cannot read
// it, and null in place of null.
export async function openedFor(file, models) {
  const decoded = new Map(), images = [];
  for (const model of models) {
    const kind = `${model?.channels} ${model?.values}`;
    if (model && !decoded.has(kind)) decoded.set(kind, await opened(file, model).catch((error) => error));
    images.push(model && decoded.get(kind));
  }
  return images;
}

export const isPicture = (one) => Boolean(one) && !(one instanceof Error);

function checkSize(name, pixels) {
  const megapixels = pixels / 1e6;
  if (megapixels > MOST_MEGAPIXELS) {
    throw new Error(
      `${name} has ${Math.round(megapixels)} megapixels, and a browser's memory holds about ${MOST_MEGAPIXELS}; make it smaller first`,
    );
  }
}

function fromBitmap(bitmap, channels) {
  const scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale)), height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // what is transparent is white, as in Python
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const image = picture(channels, height, width), area = height * width;
  for (let i = 0; i < area; i++) {
    const [red, green, blue] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    if (channels === 1) {
      image.values[i] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue) / 255;
    } else {
      [red, green, blue].forEach((level, channel) => { image.values[channel * area + i] = level / 255; });
    }
  }
  return image;
}

const text = (bytes, start, end) => new TextDecoder("latin1").decode(bytes.subarray(start, end));

// How many pixels a picture has, from its header, before it is decoded; 0 if that is not known.
export function pixelsOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (text(bytes, 1, 4) === "PNG" && bytes.length > 24) return view.getUint32(16) * view.getUint32(20);
  if (text(bytes, 0, 3) === "GIF" && bytes.length > 10) return view.getUint16(6, true) * view.getUint16(8, true);
  if (text(bytes, 0, 2) === "BM" && bytes.length > 26) {
    return Math.abs(view.getInt32(18, true)) * Math.abs(view.getInt32(22, true));
  }
  if (text(bytes, 8, 16) === "WEBPVP8X" && bytes.length > 30) {
    const side = (start) => 1 + bytes[start] + 256 * bytes[start + 1] + 65536 * bytes[start + 2];
    return side(24) * side(27);
  }
  if (text(bytes, 8, 16) === "WEBPVP8 " && bytes.length > 30) {
    return (view.getUint16(26, true) & 0x3fff) * (view.getUint16(28, true) & 0x3fff);
  }
  if (text(bytes, 8, 16) === "WEBPVP8L" && bytes.length > 25) {
    const sides = view.getUint32(21, true);
    return (1 + (sides & 0x3fff)) * (1 + ((sides >> 14) & 0x3fff));
  }
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return 0;
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; at += 2 + view.getUint16(at + 2)) {
    const kind = bytes[at + 1];
    const isFrame = kind >= 0xc0 && kind <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(kind);
    if (isFrame) return view.getUint16(at + 5) * view.getUint16(at + 7);
  }
  return 0;
}

const READERS = {
  "|u1": ["getUint8", 1], "|i1": ["getInt8", 1], "<u2": ["getUint16", 2], "<i2": ["getInt16", 2],
  "<i4": ["getInt32", 4], "<u4": ["getUint32", 4], "<f4": ["getFloat32", 4], "<f8": ["getFloat64", 8],
};

// An array [bands, height, width], [height, width, bands], or [height, width] for one band.
export function array(name, bytes, model) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = bytes[6] === 1 ? 10 : 12;
  if (bytes.length < 12) throw new Error(`${name} is incomplete`);
  const length = bytes[6] === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (bytes.length < start + length) throw new Error(`${name} is incomplete`);
  const header = text(bytes, start, start + length);
  const kind = /'descr': *'([^']+)'/.exec(header)?.[1];
  const shape = /'shape': *\(([^)]*)\)/.exec(header)?.[1].split(",").filter((part) => part.trim()).map(Number);
  const reader = READERS[kind];
  if (!reader || !shape) throw new Error(`${name} holds ${kind ?? "something"} that cannot be shown; save uint8 or float32`);
  if (header.includes("'fortran_order': True")) throw new Error(`${name} is in Fortran order; save np.ascontiguousarray(array)`);
  if (shape.length === 2) shape.unshift(1);
  const first = shape[0] === model.channels;
  if (shape.length !== 3 || !(first || shape[2] === model.channels)) {
    throw new Error(`${name} has the shape [${shape}], and this model takes ${model.channels} bands: [bands, height, width]`);
  }
  const [channels, height, width] = first ? shape : [shape[2], shape[0], shape[1]];
  if (height * width === 0) throw new Error(`${name} has the shape [${shape}], which holds no pixels`);
  if (bytes.length < start + length + channels * height * width * reader[1]) throw new Error(`${name} is incomplete`);
  if (height * width > MOST_MEGAPIXELS * 1e6) throw new Error(`${name} has more than ${MOST_MEGAPIXELS} megapixels; cut out a part`);
  const isByte = kind === "|u1";
  if (model.values === "uint8" && !isByte && !kind.startsWith("<f")) {
    throw new Error(`${name} holds ${kind}, and this model takes uint8, or floats from 0 to 1`);
  }
  const image = picture(channels, height, width), area = height * width;
  for (let i = 0; i < channels * area; i++) {
    const place = first ? i : (i % channels) * area + Math.floor(i / channels);
    const value = view[reader[0]](start + length + i * reader[1], true);
    image.values[place] = model.values === "uint8" && isByte ? value / 255 : value;
  }
  if (model.values === "uint8" && !image.values.every((value) => value >= 0 && value <= 1)) { // also for NaN
    throw new Error(
      `${name}: floats must lie from 0 to 1; leave out the normalisation, which the model does itself, and give values of 0 to 255 as uint8`,
    );
  }
  return image;
}

// A picture that the page holds: bytes or float32, [channels, height, width], already of the model's size.
export async function sample(entry, model) {
  const response = await fetch(entry.file);
  const bytes = response.ok ? await response.arrayBuffer() : new ArrayBuffer(0);
  const count = model.channels * entry.height * entry.width;
  const isByte = model.values === "uint8";
  if (bytes.byteLength !== count * (isByte ? 1 : 4)) throw new Error(`${entry.file} is missing or incomplete; write the page again`);
  const values = isByte ? Float32Array.from(new Uint8Array(bytes), (level) => level / 255) : new Float32Array(bytes);
  const { height, width, whole } = entry; // `whole`: before it was made as the model sees it
  return { channels: model.channels, height, width, values, whole };
}

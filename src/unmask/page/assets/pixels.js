// Pictures as numbers: planes of channels, in the units of a model, and back to what a screen shows.
// A picture is {channels, height, width, values}; values is a Float32Array, one plane after another.

export function picture(channels, height, width) {
  return { channels, height, width, values: new Float32Array(channels * height * width) };
}

// The size, in multiples of what a masking hides at once, with the picture's aspect ratio and about the model's area.
export function fittedSize(height, width, model) {
  const area = model.height * model.width, patch = model.mask_unit;
  const scale = Math.sqrt(area / (height * width));
  const sides = [height, width].map((side) => Math.max(1, Math.round((side * scale) / patch)));
  const most = Math.max(1, Math.floor((2 * area) / patch ** 2));
  return sides.map((side) => Math.min(side, most) * patch);
}

// Resized until it covers the size, then cropped in the centre.
export function fitted(image, size) {
  return cut(image, size, Math.max(size[0] / image.height, size[1] / image.width));
}

// Height and width of what a model sees of a picture: with the picture's aspect ratio, so that the model's size just covers it
// (`fitted` is longest) or is just covered (shortest), or no side is longer than `longest`; else the model's size.
export function seenSize({ height, width }, model, { fitted: side, longest }) {
  if (!side && !longest) return [model.height, model.width];
  const scales = [model.height / height, model.width / width];
  const scale = side ? Math[side === "longest" ? "min" : "max"](...scales) : Math.min(1, longest / Math.max(height, width));
  return [height, width].map((length) => Math.max(1, roundedAsPython(length * scale)));
}

// Halves go to the even number.
const roundedAsPython = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

// A picture as a model sees it: resized, or resized to cover `outer` and cropped in the centre. `whole` is its size before.
export function viewed(image, model, view) {
  const size = seenSize(image, model, view), whole = [image.height, image.width];
  const scales = (view.outer ?? size).map((side, axis) => side / whole[axis]);
  const seen = view.outer ? cut(image, size, Math.max(...scales)) : cut(image, size, ...scales);
  return { ...seen, whole };
}

// The centre of a picture that is resized by these scales. NaN, a missing value, stays missing.
function cut(image, [height, width], down, across = down) {
  if (image.height === height && image.width === width && down === 1 && across === 1) return image;
  const rows = weights(image.height, height, down), columns = weights(image.width, width, across);
  const result = picture(image.channels, height, width);
  const middle = new Float32Array(image.height * width);
  for (let channel = 0; channel < image.channels; channel++) {
    const plane = image.values.subarray(channel * image.height * image.width);
    for (let y = 0; y < image.height; y++) {
      for (let x = 0; x < width; x++) {
        middle[y * width + x] = mean(columns[x], (k) => plane[y * image.width + k]);
      }
    }
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const value = mean(rows[y], (k) => middle[k * width + x]);
        result.values[(channel * height + y) * width + x] = value;
      }
    }
  }
  return result;
}

// For each new pixel the old ones below a triangle, which is wider where the picture shrinks.
function weights(old, next, scale) {
  const reach = Math.max(1, 1 / scale), shift = (old - next / scale) / 2;
  return Array.from({ length: next }, (_, i) => {
    const centre = shift + (i + 0.5) / scale - 0.5;
    const parts = [];
    for (let k = Math.ceil(centre - reach); k <= centre + reach; k++) {
      const weight = 1 - Math.abs(k - centre) / reach;
      if (weight > 0) parts.push([Math.min(old - 1, Math.max(0, k)), weight]);
    }
    return parts;
  });
}

function mean(parts, value) {
  let sum = 0, total = 0;
  for (const [k, weight] of parts) {
    const one = value(k);
    if (!Number.isNaN(one)) { sum += weight * one; total += weight; }
  }
  return total > 0 ? sum / total : NaN;
}

// For each of many places along a line the two of few that it lies between, and the share of the second.
export function between(few, many) {
  return Array.from({ length: many }, (_, i) => {
    const place = Math.max(0, ((i + 0.5) * few) / many - 0.5), first = Math.min(few - 1, Math.floor(place));
    return [first, Math.min(few - 1, first + 1), place - first];
  });
}

// Values for display: 0 is black and 1 is white.
export function stretched(value, channel, model) {
  return (value - model.low[channel]) / (model.high[channel] - model.low[channel]);
}

// Channels as red, green and blue, or one as grey; missing values are white.
export function imageData(image, bands, model, shown = (value) => value) {
  const { height, width } = image, data = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let colour = 0; colour < 3; colour++) {
      const channel = bands[bands.length === 1 ? 0 : colour];
      const value = stretched(shown(image.values[channel * height * width + i], i, channel), channel, model);
      data.data[4 * i + colour] = Number.isNaN(value) ? 255 : Math.round(255 * Math.min(1, Math.max(0, value)));
    }
    data.data[4 * i + 3] = 255;
  }
  return data;
}

// Of the hidden pixels: the size of the error at each place from 0 to 1, and its root mean square in levels of 255.
export function errors(rebuilt, original, hidden, model) {
  const { channels, height, width } = original, area = height * width;
  const map = new Float32Array(area);
  let sum = 0, count = 0;
  for (let i = 0; i < area; i++) {
    if (!hidden(i)) continue;
    let squares = 0, known = 0;
    for (let channel = 0; channel < channels; channel++) {
      const k = channel * area + i;
      const off = stretched(rebuilt.values[k], channel, model) - stretched(original.values[k], channel, model);
      if (!Number.isNaN(off)) { squares += off * off; known += 1; }
    }
    map[i] = known ? Math.sqrt(squares / known) : 0;
    sum += squares;
    count += known;
  }
  return { map, level: count ? 255 * Math.sqrt(sum / count) : NaN };
}

// Black, red, yellow, white: dark where the error is 0, white from half of the range on.
export function heat(map, height, width) {
  const data = new ImageData(width, height);
  map.forEach((value, i) => {
    const level = Math.min(1, 2 * value) * 3;
    for (let colour = 0; colour < 3; colour++) {
      data.data[4 * i + colour] = Math.round(255 * Math.min(1, Math.max(0, level - colour)));
    }
    data.data[4 * i + 3] = 255;
  });
  return data;
}

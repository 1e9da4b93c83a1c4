// Levels of hidden patches read from the hidden pixels themselves: what a perfect guess of them would give.

// The picture of a prediction of normalised patches [n p], with each patch's true mean and deviation.
export function withTrueLevels(prediction, original, model) {
  const { channels, height, width, values } = original, side = model.patch_size;
  const columns = width / side, area = height * width, length = side * side * channels;
  const result = { ...original, values: new Float32Array(values.length) };
  for (let patch = 0; patch < (height / side) * columns; patch++) {
    const top = Math.floor(patch / columns) * side, left = (patch % columns) * side;
    // the values of a patch are ordered by row, column and channel
    const at = (k) => {
      const channel = k % channels, pixel = Math.floor(k / channels);
      return channel * area + (top + Math.floor(pixel / side)) * width + left + (pixel % side);
    };
    const normal = (k) => (values[at(k)] - model.mean[k % channels]) / model.std[k % channels];
    let sum = 0, known = 0, squares = 0;
    for (let k = 0; k < length; k++) {
      if (!Number.isNaN(normal(k))) { sum += normal(k); known += 1; }
    }
    const mean = sum / Math.max(1, known);
    for (let k = 0; k < length; k++) {
      if (!Number.isNaN(normal(k))) squares += (normal(k) - mean) ** 2;
    }
    const deviation = Math.sqrt(squares / Math.max(1, known - 1) + 1e-6);
    for (let k = 0; k < length; k++) {
      const value = prediction[patch * length + k] * deviation + mean;
      result.values[at(k)] = value * model.std[k % channels] + model.mean[k % channels];
    }
  }
  return result;
}

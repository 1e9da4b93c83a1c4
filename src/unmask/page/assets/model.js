// One model's file: load it once, with progress, and run it on pictures.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { withTrueLevels } from "./levels.js";

ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
// threads need isolation headers, which many servers do not send; without them they fail silently
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;

export const threads = ort.env.wasm.numThreads;

async function answer(path) {
  const response = await fetch(path, { cache: "force-cache" });
  if (!response.ok) throw new Error(`${path} is missing (the server answered ${response.status}); write the page again`);
  return response;
}

// A file of the page as a whole.
export async function fetched(path) {
  return new Uint8Array(await (await answer(path)).arrayBuffer());
}

// A large file whose size is known, with the share that is there.
async function streamed(path, bytes, progress) {
  const whole = new Uint8Array(bytes), reader = (await answer(path)).body.getReader();
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > bytes) { filled = bytes + 1; break; }
    whole.set(value, filled);
    filled += value.length;
    progress(filled / bytes);
  }
  if (filled !== bytes) {
    throw new Error(`${path} is incomplete or from another page: ${filled} of ${bytes} bytes; write the page again`);
  }
  return whole;
}

export class Model {
  constructor(entry, session) {
    Object.assign(this, entry.description);
    this.entry = entry;
    this.name = entry.name;
    this.session = session;
  }

  static async load(entry, progress) {
    const buffer = await streamed(entry.file, entry.bytes, progress);
    try {
      return new Model(entry, await ort.InferenceSession.create(buffer));
    } catch (error) {
      throw new Error(`${entry.file} is damaged: onnxruntime cannot read it (${String(error.message ?? error).slice(0, 120)})`);
    }
  }

  gridOf(image) {
    return { rows: image.height / this.patch_size, columns: image.width / this.patch_size };
  }

  // All outputs for one picture, by their names.
  async run(image, more = {}) {
    const shape = [1, image.channels, image.height, image.width];
    return this.session.run({ images: new ort.Tensor("float32", image.values, shape), ...more });
  }

  // The picture rebuilt from its visible patches, with levels "neighbors" or "true".
  async rebuild(image, mask, levels) {
    const index = (hidden) => {
      const chosen = mask.flatMap((one, i) => (one === hidden ? [BigInt(i)] : []));
      return new ort.Tensor("int64", BigInt64Array.from(chosen), [1, chosen.length]);
    };
    const outputs = await this.run(image, { kept_index: index(false), removed_index: index(true) });
    let rebuilt = { ...image, values: outputs.rebuilt.data };
    if (levels === "true" && this.normalized_patches) rebuilt = withTrueLevels(outputs.prediction.data, image, this);
    if (this.values === "uint8") {
      rebuilt.values = rebuilt.values.map((value) => Math.min(1, Math.max(0, value)));
    }
    return rebuilt;
  }
}

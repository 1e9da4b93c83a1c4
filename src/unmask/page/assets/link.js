// What a link carries: picture, masking, seed and mask.

export const NAMES = ["sample", "masking", "ratio", "stride", "seed", "levels", "bands", "mask"];

export function readLink(hash) {
  const values = new URLSearchParams(hash.replace(/^#/, ""));
  return Object.fromEntries(NAMES.filter((name) => values.has(name)).map((name) => [name, values.get(name)]));
}

export function writeLink(state) {
  const values = new URLSearchParams();
  for (const name of NAMES) {
    if (state[name] !== undefined && state[name] !== "") values.set(name, state[name]);
  }
  return `#${values}`;
}

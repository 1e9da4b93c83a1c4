// What a link carries: the tab, and there the picture; in the studio also masking, seed and mask; of class maps the opacity.

export const NAMES = ["tab", "sample", "masking", "ratio", "stride", "seed", "levels", "bands", "mask", "opacity"];

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

const links = new Map();
let shown = "";

// The link of a tab; it stands in the address while the tab is shown.
export function putLink(tab, link) {
  links.set(tab, link);
  if (tab === shown) history.replaceState(null, "", link);
}

// The tab whose link stands in the address from now on.
export function showLinkOf(tab) {
  shown = tab;
  if (links.has(tab)) history.replaceState(null, "", links.get(tab));
}

// Whether the address is one that the page itself wrote.
export function isOwnLink(hash) {
  return links.get(shown) === hash;
}

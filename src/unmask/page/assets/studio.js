// The mask studio: from what is chosen on the page to pictures, for one run or several side by side.

import { isPicture, openedFor, sample } from "./files.js";
import { putLink, writeLink } from "./link.js";
import { carried, draw, read, size, written } from "./masks.js";
import { Model } from "./model.js";
import { Painter } from "./paint.js";
import { Panel } from "./panel.js";
import { fitted, fittedSize } from "./pixels.js";

const $ = (id) => document.getElementById(id);

const state = { masking: "random", ratio: 0.75, stride: 2, seed: 0, levels: "neighbors", mask: [], bands: [] };
let samples, entries, panels, painter;
let models = []; // null where one could not be loaded
let images = []; // of each model, in its size; null where it does not fit
let chosen = 0; // number of the newest picture that was asked for
let wanted = 0; // number of the newest repaint that was asked for
let running = false;

export async function start(page) {
  samples = page.samples;
  entries = page.models.filter((entry) => entry.tab === "studio");
  panels = entries.map((entry) => new Panel(entry, $("runs")));
  const loading = entries.map((entry, i) => Model.load(entry, (share) => panels[i].say(`loading ${Math.round(100 * share)} %`)));
  models = await Promise.all(loading.map((one, i) => one.catch((error) => { panels[i].say(error.message); return null; })));
  const leading = models.findIndex(Boolean);
  if (leading < 0) return;
  painter = new Painter(panels[leading].paintable(), {
    grid: leadGrid, mask: () => state.mask, change: paint, say: (text) => { $("spoken").textContent = text; },
  });
  prepareControls();
}

const lead = () => models.findIndex((model, i) => model && images[i]);
const leadGrid = () => models[lead()].gridOf(images[lead()]);

function prepareControls() {
  samples.forEach((entry, number) => {
    if (!entries.some((one) => entry.views[one.number])) return;
    const option = new Option(entry.name, String(number));
    option.disabled = !models.some((model, i) => model && entry.views[entries[i].number]); // it could not be loaded
    $("sample").append(option);
  });
  $("sample").append(new Option("your own", "own"));
  $("sample").lastElementChild.disabled = true;
  $("of-levels").hidden = !models.some((model) => model?.normalized_patches);
  $("sample").onchange = () => choose($("sample").value);
  $("file").onchange = () => {
    const [file] = $("file").files;
    $("file").value = ""; // so that the same file can be chosen again
    if (file) bring(file);
  };
  $("masking").onchange = () => set({ masking: $("masking").value });
  $("ratio").oninput = () => set({ ratio: Number($("ratio").value) });
  $("stride").onchange = () => set({ stride: Number($("stride").value) });
  $("seed").onchange = () => set({ seed: seedOf($("seed").value) });
  $("next-seed").onclick = () => set({ seed: seedOf(state.seed + 1) });
  $("invert").onclick = () => setMask(state.mask.map((hidden) => !hidden));
  $("clear").onclick = () => setMask(state.mask.map(() => false));
  $("levels").onchange = () => { state.levels = $("levels").value; show(); };
  $("copy").onclick = copyLink;
  $("controls").onsubmit = (event) => event.preventDefault();
  window.addEventListener("resize", () => painter.outline(false));
}

const seedOf = (text) => Math.min(999999999, Math.max(0, Math.trunc(Number(text)) || 0));

// What a link asks for; values that make no sense are left as they are.
export async function follow(link) {
  if (!models.some(Boolean)) return; // each says why it could not be loaded
  const among = (value, id) => [...$(id).options].some((option) => option.value === value && !option.disabled);
  if (among(link.masking, "masking")) state.masking = link.masking;
  if (Number(link.ratio) >= 0.05 && Number(link.ratio) <= 0.95) state.ratio = Number(link.ratio);
  if (among(link.stride, "stride")) state.stride = Number(link.stride);
  if (link.seed !== undefined) state.seed = seedOf(link.seed);
  if (among(link.levels, "levels")) state.levels = link.levels;
  const chosen = among(link.sample, "sample") ? link.sample : [...$("sample").options].find((option) => !option.disabled)?.value;
  if (!chosen) { say("This page holds no sample; choose a picture of your own."); return; }
  await choose(chosen, link);
}

async function choose(value, link = {}) {
  const number = chosen += 1;
  try {
    const views = models.map((model, i) => model && samples[value].views[entries[i].number]);
    const read = await Promise.all(views.map((view, i) => view && sample(view, models[i])));
    if (number !== chosen) return;
    images = read;
    state.sample = value;
    accept(link, (model) => `cannot read this picture; it takes ${model.channels} bands of ${model.values}`);
  } catch (error) {
    if (number !== chosen) return;
    if (state.sample) $("sample").value = state.sample; // the picture that is still shown
    say(error.message);
  }
}

export async function bring(file) {
  if (!models.some(Boolean)) return;
  say("");
  const number = chosen += 1;
  try {
    const decoded = await openedFor(file, models);
    if (number !== chosen) return;
    if (!decoded.some(isPicture)) throw decoded.find(Boolean);
    images = decoded.map((image, i) => (isPicture(image) ? fitted(image, fittedSize(image.height, image.width, models[i])) : null));
    state.sample = "own";
    accept({}, (model) => decoded[models.indexOf(model)].message);
  } catch (error) {
    if (number === chosen) say(error.message);
  }
}

// A new picture; `why` says of a model that it has none.
function accept(link, why) {
  models.forEach((model, i) => {
    if (model && !images[i]) panels[i].clear(why(model));
  });
  say("");
  panels[lead()].canvases.masked.parentElement.append(painter.canvas);
  prepareBands(link.bands);
  const kept = link.mask ? read(link.mask, size(leadGrid())) : state.masking === "painted" && state.mask;
  if (kept && kept.length === size(leadGrid())) {
    state.mask = kept;
    show();
  } else {
    set({ masking: state.masking === "painted" ? "random" : state.masking });
  }
  painter.outline(false);
}

function prepareBands(text) {
  const model = models[lead()], count = model.channels;
  const usual = count >= 3 ? [0, 1, 2] : [0];
  const linked = (text ?? "").split(",").map((one) => Number(one) - 1);
  const fit = (bands) => bands.length === usual.length && bands.every((band) => Number.isInteger(band) && band >= 0 && band < count);
  state.bands = [linked, state.bands, usual].find(fit);
  const place = $("of-bands");
  place.replaceChildren();
  place.hidden = (count === 1 || count === 3) && model.values === "uint8";
  if (place.hidden) { state.bands = usual; return; }
  ["red", "green", "blue"].slice(0, usual.length).forEach((colour, i) => {
    const select = document.createElement("select"), label = document.createElement("label");
    select.id = `band-${colour}`;
    label.htmlFor = select.id;
    label.textContent = count >= 3 ? `band as ${colour}` : "band";
    for (let band = 0; band < count; band++) select.append(new Option(String(band + 1), String(band)));
    select.value = String(state.bands[i]);
    select.onchange = () => { state.bands[i] = Number(select.value); show(); };
    place.append(label, select);
  });
}

// Change what decides about the mask, and draw it again.
function set(changes) {
  Object.assign(state, changes);
  if (state.masking !== "painted") state.mask = draw(state.masking, leadGrid(), state);
  show();
}

function setMask(mask) {
  state.masking = "painted";
  state.mask = mask;
  show();
}

function paint(indices, hidden) {
  const mask = [...state.mask];
  for (const index of indices) mask[index] = hidden;
  setMask(mask);
}

function show() {
  if (lead() < 0) return;
  $("masking").value = state.masking;
  $("ratio").value = state.ratio;
  $("ratio-shown").textContent = state.ratio.toFixed(2);
  $("stride").value = state.stride;
  $("seed").value = state.seed;
  $("levels").value = state.levels;
  $("sample").value = state.sample;
  $("of-ratio").hidden = !["random", "block"].includes(state.masking);
  $("of-seed").hidden = $("of-ratio").hidden;
  $("of-stride").hidden = state.masking !== "grid";
  putLink("studio", currentLink());
  eachShown((model, panel, image, mask) => panel.showMask(image, mask, model, bandsOf(model)));
  const hidden = state.mask.filter(Boolean).length;
  wanted += 1;
  if (hidden === 0 || hidden === state.mask.length) {
    say(hidden === 0 ? "Nothing is hidden: hide at least one patch." : "Everything is hidden: leave at least one patch visible.");
    eachShown((model, panel) => panel.say("nothing to rebuild"));
    return;
  }
  say("");
  repaint();
}

const bandsOf = (model) => state.bands.map((band) => Math.min(band, model.channels - 1));

function eachShown(act) {
  const grid = leadGrid();
  models.forEach((model, i) => {
    if (model && images[i]) act(model, panels[i], images[i], carried(state.mask, grid, model.gridOf(images[i])));
  });
}

// Rebuild for the newest mask; what was asked for in between is skipped.
async function repaint() {
  if (running) return;
  running = true;
  let done = -1;
  try {
    while (done !== wanted) {
      done = wanted;
      const works = [];
      eachShown((...work) => works.push(work));
      const { levels } = state;
      for (const [model, panel, image, mask] of works) {
        if (!mask.includes(true) || !mask.includes(false)) { panel.say("on this run's grid, this hides nothing or everything"); continue; }
        const began = performance.now();
        const rebuilt = await model.rebuild(image, mask, levels);
        if (done !== wanted) break;
        panel.showRebuilt(image, rebuilt, mask, model, bandsOf(model), { levels, took: performance.now() - began });
      }
    }
  } catch (error) {
    say(`the model could not be run: ${error.message ?? error}`);
    eachShown((model, panel) => { if (panel.section.dataset.state === "working") panel.say("not rebuilt"); });
  } finally {
    running = false;
  }
}

function currentLink() {
  const own = state.sample === "own";
  const bands = $("of-bands").hidden ? "" : state.bands.map((band) => band + 1).join(",");
  return writeLink({ ...state, tab: "studio", sample: own ? "" : state.sample, bands, mask: written(state.mask) });
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied. It carries mask and seed" + (state.sample === "own" ? ", but not your own picture." : "."));
  } catch {
    say("This browser does not let the page copy; the link is in the address bar.");
  }
}

function say(text) {
  $("message").textContent = text;
}

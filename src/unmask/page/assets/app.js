// The page: its tabs, each with what it shows of the models that the page holds, and what they have in common.

import { classes } from "./classes.js";
import { isOwnLink, readLink, showLinkOf } from "./link.js";
import { Looking } from "./looking.js";
import { threads } from "./model.js";
import { neighbours } from "./neighbours.js";
import { odd } from "./odd.js";
import { segmentation } from "./segmentation.js";
import * as studio from "./studio.js";

const $ = (id) => document.getElementById(id);

const KINDS = {
  studio: {
    title: "Mask studio",
    about: "Hide parts of a picture and see what the model rebuilds from the rest.",
    tab: () => studio,
  },
  classes: looking(classes),
  segmentation: looking(segmentation),
  neighbours: looking(neighbours),
  odd: looking(odd),
};

function looking(what) {
  return { ...what, tab: (page, panel) => new Looking(page, panel, what) };
}

let page;
let shown = "";
const tabs = {}; // by kind: what is started

async function start() {
  const response = await fetch("page.json", { cache: "no-cache" });
  if (!response.ok) throw new Error("page.json is missing; write the page again with `unmask page`");
  page = await response.json();
  page.models.forEach((entry, number) => { entry.number = number; });
  $("closed").hidden = true;
  const isolated = globalThis.crossOriginIsolated ? "" : ", because the server sends no isolation headers";
  $("about").textContent = `onnxruntime-web ${page.runtime}, WebAssembly, ${threads} thread${threads > 1 ? "s" : isolated}. Written by unmask ${page.version}.`;
  const kinds = Object.keys(KINDS).filter((kind) => page.models.some((entry) => entry.tab === kind));
  if (kinds.length === 0) return;
  $("tabs").hidden = kinds.length === 1;
  $("tabs").append(...kinds.map(tabButton));
  const { tab } = readLink(location.hash);
  acceptFiles();
  window.addEventListener("hashchange", () => {
    if (isOwnLink(location.hash)) return;
    const link = readLink(location.hash);
    open(kinds.includes(link.tab) ? link.tab : kinds[0], link);
  });
  await open(kinds.includes(tab) ? tab : kinds[0], readLink(location.hash));
}

function tabButton(kind, place, kinds) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", id: `tab-${kind}`, textContent: KINDS[kind].title, role: "tab" });
  button.setAttribute("aria-controls", `panel-${kind}`);
  button.onclick = () => open(kind);
  button.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step ? (place + step + kinds.length) % kinds.length : { Home: 0, End: kinds.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    $(`tab-${kinds[next]}`).focus();
    open(kinds[next]);
  };
  return button;
}

// Show a tab, which is started when it is shown first; `link` is what an address asks of it.
async function open(kind, link) {
  shown = kind;
  for (const one of Object.keys(KINDS)) {
    $(`panel-${one}`).hidden = one !== kind;
    $(`tab-${one}`)?.setAttribute("aria-selected", String(one === kind));
    if ($(`tab-${one}`)) $(`tab-${one}`).tabIndex = one === kind ? 0 : -1;
  }
  const { title, about } = KINDS[kind];
  const names = page.models.filter((entry) => entry.tab === kind).map((entry) => entry.name);
  document.title = `${title}: ${names.join(", ")}`;
  $("title").textContent = title;
  $("purpose").textContent = `${about} Everything runs in this browser; no picture leaves it.`;
  showLinkOf(kind);
  if (!tabs[kind]) {
    const tab = KINDS[kind].tab(page, $(`panel-${kind}`));
    tabs[kind] = { tab, started: tab.start(page) };
    link ??= {};
  }
  await tabs[kind].started;
  if (link) await tabs[kind].tab.follow(link);
}

function acceptFiles() {
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, async (event) => {
      event.preventDefault();
      document.body.classList.toggle("over", kind === "dragover");
      const file = kind === "drop" && event.dataTransfer.files[0], open = tabs[shown];
      if (!file || !open) return;
      await open.started;
      open.tab.bring(file);
    });
  }
}

start().catch((error) => {
  $("closed").hidden = false;
  $("closed").textContent = error.message;
});

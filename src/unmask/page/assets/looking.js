// A tab on which models look at one picture: its choice, and a section for each model.

import { element, labelOf, put } from "./elements.js";
import { isPicture, openedFor, sample } from "./files.js";
import { putLink, writeLink } from "./link.js";
import { Model } from "./model.js";
import { imageData, seenSize, viewed } from "./pixels.js";

export class Looking {
  // `what` is a kind of tab: its name; show(section, model, outputs, image); and where it needs them help(entries), in words,
  // prepare(section, model, entry), once; controls(form, panel, changed), once, and link() and follow(link) of what they choose;
  // check(model, entry, size), which refuses a picture of that size; compute(section, model, image, isCurrent) for outputs.
  // isCurrent says whether no other picture was chosen since; show gets it too.
  constructor(page, panel, what) {
    this.what = what;
    this.panel = panel;
    this.samples = page.samples;
    this.entries = page.models.filter((entry) => entry.tab === what.name);
    this.chosen = 0; // number of the newest picture that was asked for
    this.current = ""; // the sample that is shown
    this.prepareChoice();
    this.sections = this.entries.map((entry) => new Section(entry, panel));
  }

  prepareChoice() {
    const form = this.form = element("form"), fieldset = element("fieldset"), { name } = this.what;
    form.autocomplete = "off";
    form.onsubmit = (event) => event.preventDefault();
    this.select = element("select");
    this.select.id = `${name}-sample`;
    this.file = element("input");
    Object.assign(this.file, { id: `${name}-file`, type: "file", accept: "image/*,.npy" });
    fieldset.append(
      element("legend", "Picture"), labelOf(this.select, "Sample"), this.select, labelOf(this.file, "or your own"), this.file,
    );
    form.append(fieldset);
    this.what.controls?.(form, this.panel, () => this.writeLink());
    this.disable(true); // until models are loaded
    this.message = element("p", "", "message");
    this.message.setAttribute("role", "status");
    this.message.setAttribute("aria-live", "polite");
    this.spoken = element("p", "", "spoken"); // the answers in short, for screen readers
    this.spoken.setAttribute("role", "status");
    this.panel.append(form, this.message, this.spoken);
    if (this.what.help) this.panel.append(element("p", this.what.help(this.entries), "facts"));
    this.select.onchange = () => this.choose(this.select.value);
    this.file.onchange = () => {
      const [file] = this.file.files;
      this.file.value = ""; // so that the same file can be chosen again
      if (file) this.bring(file);
    };
  }

  async start() {
    this.models = await Promise.all(this.entries.map(async (entry, i) => {
      try {
        const model = await Model.load(entry, (share) => this.sections[i].say(`loading ${Math.round(100 * share)} %`));
        await this.what.prepare?.(this.sections[i], model, entry);
        return model;
      } catch (error) {
        this.sections[i].say(error.message);
        return null;
      }
    }));
    this.samples.forEach((entry, number) => {
      const readable = this.models.some((model, i) => model && entry.views[this.entries[i].number]);
      if (readable) this.select.append(new Option(entry.name, String(number)));
    });
    this.select.append(new Option("your own", "own"));
    this.select.lastElementChild.disabled = true;
    this.disable(!this.models.some(Boolean));
  }

  disable(yes) {
    for (const fieldset of this.form.querySelectorAll("fieldset")) fieldset.disabled = yes;
  }

  async follow(link) {
    const values = [...this.select.options].filter((option) => !option.disabled).map((option) => option.value);
    if (!this.models.some(Boolean)) return;
    this.what.follow?.(link);
    if (values.length === 0) {
      this.message.textContent = "This page holds no sample; choose a picture of your own.";
      this.sections.forEach((section, i) => { if (this.models[i]) section.say("no picture yet"); });
      return;
    }
    await this.choose(values.includes(link.sample) ? link.sample : values[0]);
  }

  async choose(value) {
    await this.take(value, (model, i) => {
      const view = this.samples[value].views[this.entries[i].number];
      if (view) this.what.check?.(model, this.entries[i], [view.height, view.width]);
      return view && sample(view, model);
    });
  }

  writeLink() {
    const sample = this.current === "own" ? "" : this.current;
    putLink(this.what.name, writeLink({ tab: this.what.name, sample, ...this.what.link?.() }));
  }

  // A file of one's own.
  async bring(file) {
    if (!this.models.some(Boolean)) return;
    const number = this.chosen += 1, decoded = await openedFor(file, this.models);
    if (number !== this.chosen) return;
    await this.take("own", (model, i) => {
      const { [i]: picture } = decoded, entry = this.entries[i];
      if (!isPicture(picture)) return picture;
      this.what.check?.(model, entry, seenSize(picture, model, entry.view));
      return viewed(picture, model, entry.view);
    }, number);
  }

  // Show what models say of a picture, one after another; nothing if another picture was chosen in between.
  async take(value, imageOf, number = this.chosen += 1) {
    this.message.textContent = this.spoken.textContent = "";
    const images = await Promise.all(this.models.map(async (model, i) => {
      try {
        return model && await imageOf(model, i);
      } catch (error) {
        return error;
      }
    }));
    if (number !== this.chosen) return;
    if (!images.some(isPicture) && images.some(Boolean)) {
      this.refuse(images.find(Boolean));
      return;
    }
    this.select.value = this.current = value;
    this.writeLink();
    const works = [...this.models.entries()].filter(([, model]) => model);
    for (const [i, model] of works) {
      if (isPicture(images[i])) this.sections[i].wait();
      else this.sections[i].clear(images[i]?.message ?? `cannot read this picture; it takes ${model.channels} bands of ${model.values}`);
    }
    for (const [i, model] of works.filter(([at]) => isPicture(images[at]))) {
      const section = this.sections[i];
      try {
        section.showPicture(images[i], model);
        const began = performance.now();
        const isCurrent = () => number === this.chosen;
        const outputs = await (this.what.compute?.(section, model, images[i], isCurrent) ?? model.run(images[i]));
        if (!isCurrent()) return;
        await this.what.show(section, model, outputs, images[i], isCurrent);
        if (!isCurrent()) return;
        section.done(performance.now() - began);
      } catch (error) {
        if (number !== this.chosen) return;
        section.clear(`not computed: ${error.message ?? error}`);
      }
    }
    this.spoken.textContent = this.sections.map((section) => section.inWords()).filter(Boolean).join("; ");
  }

  // A picture that no model can take; the one before stays.
  refuse(error) {
    this.select.value = this.current;
    this.message.textContent = error.message ?? String(error);
    this.sections.forEach((section, i) => {
      if (section.state === "working") section.say("not computed");
      else if (this.models[i] && this.current === "") section.say("no picture yet");
    });
  }
}

// What one model says.
class Section {
  constructor(entry, parent) {
    this.entry = entry;
    this.root = element("section");
    this.root.setAttribute("aria-label", entry.name);
    this.numbers = element("p", "loading …", "numbers");
    this.body = element("div", "", "looked");
    this.picture = element("canvas");
    this.picture.setAttribute("role", "img");
    this.picture.setAttribute("aria-label", `what ${entry.name} sees of the picture`);
    this.picture.dataset.view = "picture";
    const figure = element("figure");
    figure.append(this.picture, element("figcaption", "what the model sees"));
    this.answer = element("div", "", "answer");
    this.body.append(figure, this.answer);
    this.body.hidden = true;
    this.root.append(element("h2", entry.name), element("p", entry.about, "facts"), this.body, this.numbers);
    parent.append(this.root);
  }

  get state() { return this.root.dataset.state; }

  // In place of an answer.
  say(text) {
    this.numbers.textContent = text;
    this.root.dataset.state = "said";
  }

  // No picture, and why.
  clear(text) {
    this.body.hidden = true;
    this.say(text);
  }

  // Nothing of an earlier picture, until it is this model's turn.
  wait() {
    this.clear("waiting …");
    this.root.dataset.state = "working";
  }

  showPicture(image, model) {
    const bands = image.channels >= 3 ? [0, 1, 2] : [0];
    put(this.picture, imageData(image, bands, model));
    this.body.hidden = false;
    const answer = element("div", "", "answer"); // a new one: what is still made for an earlier picture goes nowhere
    this.answer.replaceWith(answer);
    this.answer = answer;
    this.numbers.textContent = "computing …";
    this.root.dataset.state = "working";
  }

  // The answer in short; nothing if there is none.
  inWords() {
    if (this.state !== "shown") return "";
    const nearest = this.answer.querySelector(".neighbours li")?.dataset.name;
    const said = nearest ? `nearest is ${nearest}` : this.answer.querySelector(".verdict").textContent;
    return `${this.entry.name}: ${said}`;
  }

  done(took) {
    this.numbers.textContent = `${Math.round(took)} ms${this.work ? `, ${this.work}` : ""}`;
    this.root.dataset.state = "shown";
  }
}

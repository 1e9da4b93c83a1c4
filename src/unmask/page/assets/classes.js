// The tab of classifiers: the probability of each class, the most likely first.

import { element } from "./elements.js";

const MOST = 12; // classes in the table

export const classes = {
  name: "classes",
  title: "Classes",
  about: "See what a fine-tuned classifier says of a picture.",

  show(section, model, { probabilities }) {
    const { classes: names, several_labels: several, thresholds } = model;
    const values = [...probabilities.data];
    const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
    const chosen = several ? order.filter((i) => values[i] >= (thresholds?.[i] ?? 0.5)) : order.slice(0, 1);
    const said = element("p", chosen.map((i) => names[i]).join(", ") || "none of the classes", "verdict");
    const table = element("table"), body = element("tbody");
    table.append(element("caption", several ? "probability of each class; a picture may have several" : "probability of each class"));
    for (const i of order.slice(0, MOST)) body.append(row(names[i], values[i], chosen.includes(i)));
    table.append(body);
    section.answer.append(said, table);
    if (order.length > MOST) section.answer.append(element("p", `and ${order.length - MOST} classes below these`, "facts"));
  },
};

function row(name, value, chosen) {
  const made = element("tr", "", chosen ? "chosen" : ""), heading = element("th", name);
  heading.scope = "row";
  const bar = element("meter"), share = element("td", `${(100 * value).toFixed(1)} %`), place = element("td");
  Object.assign(bar, { min: 0, max: 1, value });
  bar.setAttribute("aria-hidden", "true"); // the number is beside it
  share.dataset.value = String(value);
  place.append(bar);
  made.append(heading, place, share);
  return made;
}

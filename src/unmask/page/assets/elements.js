// Parts of the page that are made by modules.

export function element(tag, text = "", name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

export function labelOf(control, text) {
  const label = element("label", text);
  label.htmlFor = control.id;
  return label;
}

// Fill a canvas, which takes the size of the picture.
export function put(canvas, data) {
  [canvas.width, canvas.height] = [data.width, data.height];
  canvas.getContext("2d").putImageData(data, 0, 0);
}

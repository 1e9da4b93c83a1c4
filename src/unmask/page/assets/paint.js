// Painting patches with mouse, touch and keyboard, on a transparent canvas above a picture.

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Painter {
  // `hooks`: grid() and mask() give what is there, change(indices, hidden) changes it, say(text) is read aloud.
  constructor(canvas, hooks) {
    Object.assign(this, hooks);
    this.canvas = canvas;
    this.cursor = [0, 0];
    this.stroke = null;
    canvas.tabIndex = 0;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.stroke = null; });
    canvas.addEventListener("keydown", (event) => this.press(event));
    canvas.addEventListener("focus", () => this.outline(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this.outline(false));
  }

  placeOf(event) {
    const box = this.canvas.getBoundingClientRect(), { rows, columns } = this.grid();
    const within = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    return [
      within((event.clientY - box.top) / box.height, rows), within((event.clientX - box.left) / box.width, columns),
    ];
  }

  begin(event) {
    if (event.button > 0 || !event.isPrimary) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const place = this.placeOf(event);
    // the whole stroke does what it does to its first patch
    this.stroke = { hidden: !this.mask()[this.indexOf(place)], last: place };
    this.change([this.indexOf(place)], this.stroke.hidden);
  }

  move(event) {
    if (!this.stroke || !event.isPrimary) return;
    const place = this.placeOf(event), from = this.stroke.last;
    const steps = Math.max(1, ...place.map((one, axis) => Math.abs(one - from[axis])));
    const line = Array.from({ length: steps + 1 }, (_, step) =>
      this.indexOf(place.map((one, axis) => Math.round(from[axis] + ((one - from[axis]) * step) / steps))));
    this.stroke.last = place;
    this.change(line, this.stroke.hidden);
  }

  press(event) {
    const { rows, columns } = this.grid(), by = MOVES[event.key];
    if (by) {
      const sides = [rows, columns];
      this.cursor = this.cursor.map((one, axis) => Math.min(sides[axis] - 1, Math.max(0, one + by[axis])));
    } else if (event.key === " " || event.key === "Enter") {
      const index = this.indexOf(this.cursor);
      this.change([index], !this.mask()[index]);
    } else {
      return;
    }
    event.preventDefault();
    this.outline(true);
    const state = this.mask()[this.indexOf(this.cursor)] ? "hidden" : "visible";
    this.say(`row ${this.cursor[0] + 1}, column ${this.cursor[1] + 1}, ${state}`);
  }

  indexOf([row, column]) {
    return row * this.grid().columns + column;
  }

  // The frame around the patch that the keyboard stands on.
  outline(shown) {
    const { rows, columns } = this.grid(), box = this.canvas.getBoundingClientRect(), scale = window.devicePixelRatio;
    this.cursor = [Math.min(rows - 1, this.cursor[0]), Math.min(columns - 1, this.cursor[1])];
    this.canvas.width = Math.max(1, Math.round(box.width * scale));
    this.canvas.height = Math.max(1, Math.round(box.height * scale));
    if (!shown) return;
    const context = this.canvas.getContext("2d");
    const [high, wide] = [this.canvas.height / rows, this.canvas.width / columns];
    for (const [colour, width] of [["#000", 5 * scale], ["#fff", 2 * scale]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(this.cursor[1] * wide + 2, this.cursor[0] * high + 2, wide - 4, high - 4);
    }
  }
}

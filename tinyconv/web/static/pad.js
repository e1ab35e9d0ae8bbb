// The drawing: strokes in the coordinates of 28 x 28 pixels, and their picture.

import { colour, palette } from "./tensor.js";

export const SIDE = 28;
const PEN = 1.15, BOX = 20, CENTRE = 14.5; // MNIST's digits are 20 high, and their centre of mass is in the middle

export class Pad {
  constructor(canvas, onChange, onRest) {
    Object.assign(this, { canvas, onChange, onRest });
    this.strokes = [];
    this.base = null; // an example under the strokes
    this.overlay = null; // numbers from -1 to 1, which are laid over the picture
    this.marked = new Set();
    this.pen = [SIDE / 2, SIDE / 2];
    this.pixels = new Float32Array(SIDE * SIDE);
    this.listen();
    this.draw();
  }

  listen() {
    const canvas = this.canvas;
    const place = event => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
    };
    canvas.addEventListener("pointerdown", event => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.begin(place(event));
    });
    canvas.addEventListener("pointermove", event => {
      if (this.drawing) for (const one of event.getCoalescedEvents?.() ?? [event]) this.extend(place(one));
      else this.onPoint?.(this.index(place(event)));
    });
    canvas.addEventListener("pointerleave", () => this.onPoint?.(null));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.end());
    canvas.addEventListener("keydown", event => this.key(event));
    canvas.addEventListener("keyup", event => event.key === "Shift" && this.end());
    canvas.addEventListener("blur", () => this.end());
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    if (event.shiftKey && !this.drawing) this.begin(this.pen);
    this.pen = this.pen.map((value, axis) => Math.min(SIDE - 1, Math.max(1, value + moves[event.key][axis])));
    if (event.shiftKey) this.extend(this.pen);
    else this.onPoint?.(this.index(this.pen));
    this.draw();
  }

  index([x, y]) {
    const column = Math.floor(x), row = Math.floor(y);
    return column >= 0 && column < SIDE && row >= 0 && row < SIDE ? row * SIDE + column : null;
  }

  begin(point) {
    clearTimeout(this.resting);
    this.drawing = true;
    this.strokes.push([point, point]);
    this.changed();
  }

  extend(point) {
    this.strokes.at(-1).push(point);
    this.changed();
  }

  end() {
    if (!this.drawing) return;
    this.drawing = false;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.onRest(), 700);
  }

  clear(base = null) {
    clearTimeout(this.resting);
    this.strokes = [];
    this.base = base;
    this.changed();
  }

  undo() {
    this.strokes.pop();
    this.changed();
  }

  get empty() {
    return !this.strokes.length && !this.base;
  }

  // The digit no larger than MNIST's, with its centre of mass in the middle.
  fit() {
    if (!this.strokes.length || this.base) return;
    const points = this.strokes.flat(), sides = [0, 1].map(axis => points.map(point => point[axis]));
    const extent = Math.max(...sides.map(values => Math.max(...values) - Math.min(...values))) + 2 * PEN;
    const factor = Math.min(1, BOX / extent);
    const [left, top] = sides.map(values => (Math.max(...values) + Math.min(...values)) / 2);
    this.transform(([x, y]) => [(x - left) * factor + CENTRE, (y - top) * factor + CENTRE]);
    const picture = raster(this.strokes);
    let mass = 0, x = 0, y = 0;
    picture.forEach((value, index) => {
      mass += value;
      x += value * ((index % SIDE) + 0.5);
      y += value * (Math.floor(index / SIDE) + 0.5);
    });
    this.transform(point => [point[0] + CENTRE - x / mass, point[1] + CENTRE - y / mass]);
    this.changed();
  }

  transform(move) {
    this.strokes = this.strokes.map(stroke => stroke.map(move));
  }

  changed() {
    this.pixels = over(this.base, raster(this.strokes));
    this.draw();
    this.onChange();
  }

  // What the last stroke has added: a direction for second order.
  lastStroke() {
    const before = over(this.base, raster(this.strokes.slice(0, -1)));
    return this.pixels.map((value, index) => value - before[index]);
  }

  mark(indices) {
    this.marked = new Set(indices);
    this.draw();
  }

  draw() {
    const context = this.canvas.getContext("2d"), side = this.canvas.width / SIDE;
    const ink = palette.ground[0] > 128 ? 20 : 240, ground = palette.ground[0];
    for (let index = 0; index < SIDE * SIDE; index++) {
      const value = this.pixels[index], grey = Math.round(ground + value * (ink - ground) * (this.overlay ? 0.35 : 1));
      let shade = [grey, grey, grey];
      if (this.overlay) {
        const share = Math.min(1, Math.abs(this.overlay[index])) ** 0.7, end = colour(Math.sign(this.overlay[index]));
        shade = shade.map((one, i) => Math.round(one + share * (end[i] - one)));
      }
      context.fillStyle = `rgb(${shade})`;
      context.fillRect((index % SIDE) * side, Math.floor(index / SIDE) * side, side, side);
    }
    context.strokeStyle = palette.mark;
    context.lineWidth = 2;
    for (const index of this.marked)
      context.strokeRect((index % SIDE) * side + 1, Math.floor(index / SIDE) * side + 1, side - 2, side - 2);
    if (document.activeElement === this.canvas && this.canvas.matches(":focus-visible")) {
      context.setLineDash([4, 4]);
      context.strokeRect((this.pen[0] - 1) * side, (this.pen[1] - 1) * side, 2 * side, 2 * side);
      context.setLineDash([]);
    }
  }
}

const over = (base, strokes) => (base ? strokes.map((value, index) => Math.max(value, base[index])) : strokes);

// Ink of a round pen along the strokes.
function raster(strokes) {
  const pixels = new Float32Array(SIDE * SIDE);
  for (const stroke of strokes) for (let i = 1; i < stroke.length; i++) segment(pixels, stroke[i - 1], stroke[i]);
  return pixels;
}

function segment(pixels, [ax, ay], [bx, by]) {
  const reach = PEN + 1, clip = value => Math.min(SIDE - 1, Math.max(0, Math.floor(value)));
  const length = (bx - ax) ** 2 + (by - ay) ** 2;
  for (let row = clip(Math.min(ay, by) - reach); row <= clip(Math.max(ay, by) + reach); row++)
    for (let column = clip(Math.min(ax, bx) - reach); column <= clip(Math.max(ax, bx) + reach); column++) {
      const x = column + 0.5, y = row + 0.5;
      const along = length ? Math.min(1, Math.max(0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length)) : 0;
      const distance = Math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay));
      const ink = Math.min(1, Math.max(0, PEN + 0.5 - distance)), index = row * SIDE + column;
      pixels[index] = Math.max(pixels[index], ink);
    }
}

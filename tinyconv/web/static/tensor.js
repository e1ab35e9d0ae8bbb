// Arrays of numbers as coloured cells on a canvas, which say what is pointed at.

const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const channels = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));

const STEPS = 255;
const table = new Uint8ClampedArray(4 * (2 * STEPS + 1)); // the colours of numbers from -1 to 1
export const palette = {};
export function readPalette() {
  for (const name of ["ground", "positive", "negative"]) palette[name] = channels(style(`--${name}`));
  palette.mark = style("--mark");
  for (let i = 0; i <= 2 * STEPS; i++) table.set([...colour((i - STEPS) / STEPS), 255], 4 * i);
}

// The colour of a number from -1 to 1: from blue over the ground to orange.
export function colour(value) {
  const end = value < 0 ? palette.negative : palette.positive;
  const share = Math.min(1, Math.abs(value)) ** 0.7;
  return palette.ground.map((from, i) => Math.round(from + share * (end[i] - from)));
}

readPalette();

export function decode({ shape, data }) {
  const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
  return { shape, values: new Float32Array(bytes.buffer) };
}

export const decodeAll = arrays =>
  Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, decode(array)]));

export function encode(values) {
  return btoa(String.fromCharCode(...new Uint8Array(Float32Array.from(values).buffer)));
}

export function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

const GAP = 3, ACROSS = 40; // between tiles; values of a vector beside each other
const room = () => (window.innerWidth < 900 ? window.innerWidth - 60 : Math.min(window.innerWidth, 1500) - 440);

// Where the tiles of a tensor go: (C, H, W) one after the other, a kernel (O, C, H, W) in columns of its O outputs.
function layout(shape, cell) {
  if (shape.length === 4) {
    const [o, c, h, w] = shape;
    return { tiles: o * c, h, w, across: o, place: tile => [tile % c, Math.floor(tile / c)] };
  }
  if (shape.length === 3) {
    const [c, h, w] = shape, across = Math.max(1, Math.min(c, 8, Math.floor(room() / (w * cell + GAP))));
    return { tiles: c, h, w, across, place: tile => [Math.floor(tile / across), tile % across] };
  }
  const [h, w] = shape.length === 2 ? shape : [Math.ceil(shape[0] / ACROSS), Math.min(shape[0], ACROSS)];
  return { tiles: 1, h, w, across: 1, place: () => [0, 0] };
}

export class TensorView {
  // `cell` is the side of a number in pixels; `onPoint` is called with the flat index that is pointed at, or null.
  constructor(title, shape, cell, onPoint) {
    this.shape = shape;
    this.size = shape.reduce((a, b) => a * b, 1);
    this.cell = cell;
    this.onPoint = onPoint;
    this.values = new Float32Array(this.size);
    this.marked = new Set();
    this.cursor = null;
    this.layout = layout(shape, cell);
    const { tiles, h, w, across } = this.layout, down = Math.ceil(tiles / across);
    this.width = across * (w * cell + GAP) - GAP;
    this.height = down * (h * cell + GAP) - GAP;
    this.canvas = Object.assign(document.createElement("canvas"), { tabIndex: 0 });
    this.scale = Math.max(1, Math.min(2, window.devicePixelRatio || 1));
    this.canvas.width = this.width * this.scale;
    this.canvas.height = this.height * this.scale;
    this.canvas.style.width = `${this.width}px`;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${title}, ${shape.join(" by ")}`);
    this.caption = document.createElement("figcaption");
    this.title = title;
    this.element = document.createElement("figure");
    this.element.append(this.canvas, this.caption);
    this.listen();
  }

  listen() {
    this.canvas.addEventListener("pointermove", event => this.point(this.at(event)));
    this.canvas.addEventListener("pointerdown", event => this.point(this.at(event)));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("blur", () => this.point(null));
    this.canvas.addEventListener("keydown", event => {
      const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      if (event.key === "Escape") this.point(null);
      if (!(event.key in moves)) return;
      event.preventDefault();
      this.point(this.cursor === null ? 0 : this.moved(...moves[event.key]));
    });
  }

  // The flat index beside the cursor; over the edge of a tile it goes on in the next one.
  moved(down, right) {
    const { h, w, tiles, place } = this.layout, index = this.cursor;
    const tile = Math.floor(index / (h * w)), row = Math.floor((index % (h * w)) / w) + down, column = (index % w) + right;
    if (row >= 0 && row < h && column >= 0 && column < w) {
      const next = tile * h * w + row * w + column;
      return next < this.size ? next : index;
    }
    const [tileRow, tileColumn] = place(tile);
    for (let other = 0; other < tiles; other++) {
      const [otherRow, otherColumn] = place(other);
      if (otherRow === tileRow + down && otherColumn === tileColumn + right)
        return other * h * w + ((row + h) % h) * w + ((column + w) % w);
    }
    return index;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect(), { h, w, tiles, place } = this.layout;
    const x = ((event.clientX - box.left) / box.width) * this.width, y = ((event.clientY - box.top) / box.height) * this.height;
    for (let tile = 0; tile < tiles; tile++) {
      const [top, left] = this.corner(place(tile));
      const row = Math.floor((y - top) / this.cell), column = Math.floor((x - left) / this.cell);
      if (row >= 0 && row < h && column >= 0 && column < w) {
        const index = tile * h * w + row * w + column;
        return index < this.size ? index : null;
      }
    }
    return null;
  }

  corner([row, column]) {
    const { h, w } = this.layout;
    return [row * (h * this.cell + GAP), column * (w * this.cell + GAP)];
  }

  point(index) {
    if (index === this.cursor) return;
    this.cursor = index;
    this.draw();
    this.onPoint(index);
  }

  show(values) {
    this.values = values;
    this.caption.textContent = `${this.title}  ±${largest(values).toPrecision(2)}`;
    this.draw();
  }

  mark(indices) {
    this.marked = new Set(indices);
    this.draw();
  }

  draw() {
    const context = this.canvas.getContext("2d"), { tiles, h, w, place } = this.layout;
    const most = largest(this.values) || 1;
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.imageSmoothingEnabled = false;
    const image = new ImageData(w, h), own = new OffscreenCanvas(w, h), brush = own.getContext("2d");
    for (let tile = 0; tile < tiles; tile++) {
      for (let i = 0; i < h * w; i++) {
        const index = tile * h * w + i;
        if (index >= this.size) break; // what is left of the image is transparent
        const place = 4 * (STEPS + Math.round((STEPS * this.values[index]) / most));
        for (let part = 0; part < 4; part++) image.data[4 * i + part] = table[place + part];
      }
      brush.putImageData(image, 0, 0);
      const [top, left] = this.corner(place(tile));
      context.drawImage(own, left, top, w * this.cell, h * this.cell);
    }
    context.strokeStyle = palette.mark;
    context.lineWidth = this.cell > 4 ? 1 : 0.7;
    for (const index of this.marked) this.outline(context, index, 0);
    context.lineWidth = 2;
    if (this.cursor !== null) this.outline(context, this.cursor, 1);
  }

  outline(context, index, beyond) {
    const { h, w, place } = this.layout, tile = Math.floor(index / (h * w)), [top, left] = this.corner(place(tile));
    const row = Math.floor((index % (h * w)) / w), column = index % w, side = this.cell + 2 * beyond;
    context.strokeRect(left + column * this.cell - beyond + 0.5, top + row * this.cell - beyond + 0.5, side - 1, side - 1);
  }
}

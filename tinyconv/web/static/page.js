// The page: the drawing, the network's numbers for it, and where they come from.

import { get, guarded, open, post, put, ask, address, showError } from "./api.js";
import { Network } from "./network.js";
import { Pad, SIDE } from "./pad.js";
import { decode, decodeAll, encode, largest, readPalette } from "./tensor.js";
import { formula, list, number, place, position, strip } from "./terms.js";
import { Training } from "./training.js";

const by = id => document.getElementById(id);
const SYMBOLS = { forward: "y", backward: "∂y", "second order": "∂ẏ" };
const HINT = by("formula").textContent;
const state = { mode: "forward", target: 0, chosen: false, version: -1, weights: null, before: null, shown: null };
let layers, network, pad, training;

// One request at a time; what changes meanwhile is computed afterwards.
let running = false, again = false;
async function compute() {
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    do {
      again = false;
      await guarded(computeOnce)();
    } while (again);
  } finally {
    running = false;
  }
}

async function computeOnce() {
  const { mode, target } = state, stroke = encode(pad.lastStroke());
  const sent = { pixels: encode(pad.pixels), stroke, target, mode, objective: by("objective").value };
  const answer = await post("pass", sent);
  if (!state.chosen) {
    const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
    if (best !== target) {
      choose(best, false);
      if (mode !== "forward") again = true;
    }
  }
  let fresh;
  if (answer.version !== state.version) {
    fresh = decodeAll((await get("weights")).params);
    state.version = answer.version;
  }
  const values = answer.layers.map(decode).map(one => one.values);
  const grads = mode === "forward" ? null : decodeAll(answer.params);
  state.shown = { ...answer, values, grads, mode, target: sent.target, objective: sent.objective };
  if (fresh) state.weights = fresh;
  network.show(values.slice(1), SYMBOLS[mode], fresh, grads);
  const most = mode === "forward" ? 0 : largest(values[0]);
  pad.overlay = most && !pad.empty ? values[0].map(value => value / most) : null;
  pad.draw();
  showProbabilities();
  if (pointed) point(...pointed);
}

function showProbabilities() {
  const { probabilities, loss, target } = state.shown, best = probabilities.indexOf(Math.max(...probabilities));
  [...by("classes").querySelectorAll("button")].forEach((button, index) => {
    const [bar, before] = button.querySelectorAll("i, b"), share = probabilities[index];
    bar.style.width = `${100 * share}%`;
    before.hidden = !state.before;
    if (state.before) before.style.left = `${100 * state.before[index]}%`;
    button.lastChild.textContent = pad.empty ? "" : `${(100 * share).toFixed(2)} %`;
    button.classList.toggle("best", !pad.empty && index === best);
  });
  by("loss").textContent = pad.empty ? "Draw a digit." : `reads ${best}; loss of class ${target}: ${number(loss)}`;
  by("loss").dataset.best = pad.empty ? "" : best;
}

function choose(target, chosen = true) {
  state.target = target;
  state.chosen = chosen;
  by("target").textContent = target;
  [...by("classes").querySelectorAll("button")].forEach((button, index) =>
    button.setAttribute("aria-pressed", index === target),
  );
}

// What is pointed at: a layer (-1 for the drawing), "output", "weight" or "grad", and an index.
let pointed = null, asked = 0;
async function point(layer, part, index) {
  pointed = index === null ? null : [layer, part, index];
  const own = ++asked;
  if (index === null) {
    unmark();
    return;
  }
  const request = termsOf(layer, part);
  if (!request || !state.shown) return explain(layer, index);
  const { layer: asking, kind } = request;
  let terms;
  try {
    terms = await get(`terms?layer=${asking}&kind=${kind}&index=${index}`);
  } catch (error) {
    if (!running) showError(error.message);
    return;
  }
  if (own !== asked) return; // the pointer has moved on
  unmark();
  if (kind === "weight" && state.mode === "forward") return explainWeight(layer, index, terms);
  const described = layers[asking], shape = { output: described.output, input: described.input, weight: described.params.weight };
  const at = position(index, shape[kind.replace("_dot", "")]);
  const lines = formula(described, asking, kind, at, terms);
  by("formula").replaceChildren(lines[0], document.createElement("br"), lines[1]);
  by("formula").dataset.total = terms.total;
  by("list").textContent = list(described, kind, terms);
  strip(by("products"), terms);
  mark(asking, kind, terms);
}

// Which terms belong to what is pointed at, in the mode that is shown.
function termsOf(layer, part) {
  const dot = state.mode === "second order" ? "_dot" : "";
  if (part === "grad" || part === "weight") return { layer, kind: `weight${dot}` };
  if (state.mode === "forward") return layer < 0 ? null : { layer, kind: "output" };
  return layer + 1 < layers.length ? { layer: layer + 1, kind: `input${dot}` } : null;
}

function mark(layer, kind, terms) {
  const card = network.cards[layer], input = layer ? network.cards[layer - 1].output : pad;
  const sets = { input, output: card.output, weight: card.weight };
  for (const [name, view] of Object.entries(sets)) if (view && !kind.startsWith(name)) view.mark(terms[name]);
  if (kind.startsWith("weight")) card.weight.mark([pointed[2]]);
  if (pointed[0] < 0) pad.mark([pointed[2]]);
}

function unmark() {
  network.clearMarks();
  pad.mark([]);
}

// Forward, a weight is a factor of many sums.
function explainWeight(layer, index, terms) {
  const own = state.weights[`${layer}.weight`], name = `w${place(position(index, own.shape))}`;
  const count = terms.left.length, values = count === 1 ? "the x that is marked" : `the ${count} values of x that are marked`;
  say(`layer ${layer}:  ${name} = ${number(own.values[index])} multiplies ${values}, each for the y beside it that is marked.`);
  mark(layer, "weight", terms);
}

function say(text) {
  by("formula").textContent = text;
  delete by("formula").dataset.total;
  by("products").hidden = true;
  by("list").textContent = "";
}

// What has no terms of a layer: a pixel, and the gradient that the loss begins with.
function explain(layer, index) {
  unmark();
  if (!state.shown) return;
  const { probabilities, target, mode, objective, values } = state.shown;
  let text;
  if (layer < 0) {
    const at = [Math.floor(index / SIDE), index % SIDE];
    text = `pixel${place(at)} = ${number(pad.pixels[index])};  x = (pixel − 0.1307) / 0.3081 = ${number(values[0][index])}`;
  } else if (objective === "score") {
    text = `the score is y[${target}]: ∂y[${index}] = ${number(values.at(-1)[index])}`;
  } else if (mode === "backward") {
    const one = index === target ? 1 : 0;
    text = `softmax cross-entropy:  ∂y[k] = p[k] − [k = ${target}];  ∂y[${index}] = ${number(probabilities[index])} − ${one} = ${number(values.at(-1)[index])}`;
  } else {
    text = `softmax cross-entropy:  ∂ẏ[k] = p[k] · (ẏ[k] − Σ p · ẏ);  ∂ẏ[${index}] = ${number(values.at(-1)[index])}`;
  }
  say(text);
}

function pointAt(layer, part, index) {
  if (index === null && pointed && (pointed[0] !== layer || pointed[1] !== part)) return;
  point(layer, part, index);
}

// Controls

const changedWeights = text => {
  by("weights").textContent = text;
  return compute();
};

function showView(name) {
  for (const other of ["draw", "train"]) {
    by(other).hidden = other !== name;
    by(`tab-${other}`).setAttribute("aria-selected", other === name);
  }
  training.shown = name === "train";
  if (name === "draw") network.draw();
}

function listen() {
  by("clear").onclick = () => {
    state.chosen = false;
    state.before = null;
    pad.clear();
  };
  by("undo").onclick = () => pad.undo();
  by("sample").onclick = guarded(async () => {
    const answer = await ask("GET", `/api/samples/${Math.floor(10000 * Math.random())}`);
    state.before = null;
    choose(answer.label);
    pad.clear(decode(answer.pixels).values);
  });
  by("modes").onchange = event => {
    state.mode = event.target.value;
    say(HINT);
    compute();
  };
  by("objective").onchange = compute;
  by("step").onclick = guarded(async () => {
    state.before = state.shown?.probabilities;
    await post("step", { target: state.target, lr: by("lr").valueAsNumber });
    await changedWeights(`after a step towards ${state.target}; the lines mark the probabilities before it`);
  });
  by("reset").onclick = guarded(async () => {
    state.before = null;
    await post("reset");
    await changedWeights("as loaded");
  });
  by("file").onchange = guarded(async event => {
    const [file] = event.target.files;
    if (!file) return;
    event.target.value = "";
    await put("weights", await file.arrayBuffer());
    state.before = null;
    await changedWeights(file.name);
  });
  for (const name of ["draw", "train"]) by(`tab-${name}`).onclick = () => showView(name);
  by("tab-draw").parentElement.addEventListener("keydown", event => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = by(by("draw").hidden ? "tab-draw" : "tab-train");
    other.click();
    other.focus();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readPalette();
    network.draw();
    training.draw();
    pad.draw();
  });
}

function addClasses() {
  for (let index = 0; index < 10; index++) {
    const button = document.createElement("button"), item = document.createElement("li");
    button.innerHTML = `<span>${index}</span><span class="bar"><i></i><b hidden></b></span><span></span>`;
    button.setAttribute("aria-label", `class ${index}`);
    button.onclick = () => {
      choose(index);
      compute();
    };
    item.append(button);
    by("classes").append(item);
  }
  choose(0, false);
}

async function begin() {
  layers = await open();
  by("save").href = address("lenet5.safetensors");
  network = new Network(layers, by("layers"), pointAt);
  pad = new Pad(by("pad"), compute, () => by("centre").checked && pad.fit());
  pad.onPoint = index => pointAt(-1, "output", index);
  training = new Training(layers, async () => {
    state.before = null;
    await changedWeights(`after ${training.losses.length} steps of training`);
    showView("draw");
  });
  addClasses();
  listen();
  await compute();
}

guarded(begin)();

// The layers of the network, one under the other, with their weights, gradients and outputs.

import { TensorView } from "./tensor.js";

const CELLS = { 28: 4, 14: 5, 10: 6, 5: 8 };
const cellOf = shape => (shape.length === 1 ? 8 : shape.length === 2 ? 2 : (CELLS[shape.at(-1)] ?? 5));
const kernelCell = shape => (shape.length === 2 ? (shape[1] > 200 ? 2 : 3) : shape[1] > 1 ? 5 : 10);

function element(name, text, ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

export class Network {
  // `onPoint(layer, part, index)`: part is "output", "weight" or "grad"; index is null when nothing is pointed at.
  constructor(layers, place, onPoint = () => {}) {
    this.cards = layers.map((layer, number) => {
      const view = (title, shape, cell, part) =>
        new TensorView(title, shape, cell, index => onPoint(number, part, index));
      const card = { output: view("y", layer.output, cellOf(layer.output), "output") };
      const tensors = element("div", "");
      tensors.className = "tensors";
      if (layer.params.weight) {
        const shape = layer.params.weight;
        card.weight = view("w", shape, kernelCell(shape), "weight");
        card.grad = view("∂w", shape, kernelCell(shape), "grad");
        card.grad.element.hidden = true;
        tensors.append(card.weight.element, card.grad.element);
      }
      tensors.append(card.output.element);
      const title = element("h2", `${number}  ${layer.text} `, element("small", `→ ${layer.output.join(" × ")}`));
      card.element = element("article", "", title, tensors);
      card.element.dataset.layer = number;
      return card;
    });
    place.replaceChildren(...this.cards.map(card => card.element));
  }

  // `outputs`: of each layer; `params` and `grads`: by name, or undefined to leave them as they are.
  show(outputs, symbol, params, grads) {
    this.cards.forEach((card, number) => {
      card.output.title = symbol;
      card.output.show(outputs[number]);
      if (!card.weight) return;
      const name = `${number}.weight`;
      if (params) card.weight.show(params[name].values);
      card.grad.element.hidden = !grads;
      if (grads) card.grad.title = symbol.replace("y", "w").replace("ẏ", "ẇ");
      if (grads) card.grad.show(grads[name].values);
    });
  }

  get views() {
    return this.cards.flatMap(card => [card.output, card.weight, card.grad]).filter(Boolean);
  }

  clearMarks() {
    for (const view of this.views) if (view.marked.size) view.mark([]);
  }

  draw() {
    for (const view of this.views) view.draw();
  }
}

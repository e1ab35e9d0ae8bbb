// What a value is the sum of, in words and numbers.

import { colour, largest } from "./tensor.js";

const FORMULAS = {
  Conv2d: {
    output: "y[o,p,q] = b[o] + Σ over c,i,j of w[o,c,i,j] · x[c, p·s+i−P, q·s+j−P]",
    input: "∂x[c,h,v] = Σ of w[o,c,i,j] · ∂y[o,p,q] over all o,p,q,i,j with p·s+i−P = h, q·s+j−P = v",
    weight: "∂w[o,c,i,j] = Σ over p,q of x[c, p·s+i−P, q·s+j−P] · ∂y[o,p,q]",
  },
  Linear: {
    output: "y[o] = b[o] + Σ over i of w[o,i] · x[i]",
    input: "∂x[i] = Σ over o of w[o,i] · ∂y[o]",
    weight: "∂w[o,i] = x[i] · ∂y[o]",
  },
  ReLU: { output: "y = x where x > 0, else 0", input: "∂x = ∂y where x > 0, else 0" },
  MaxPool2d: {
    output: "y = the largest x of the window",
    input: "∂x = Σ of ∂y over the windows whose largest value x is, else 0",
  },
  Flatten: { output: "y = x, in another shape", input: "∂x = ∂y, in another shape" },
};
const PRODUCT_RULE = {
  Conv2d: "Hv of w[o,c,i,j] = Σ over p,q of ẋ · ∂y + x · ∂ẏ",
  Linear: "Hv of w[o,i] = ẋ[i] · ∂y[o] + x[i] · ∂ẏ[o]",
};
const FACTORS = { output: ["w", "x"], input: ["w", "∂y"], weight: ["x", "∂y"], input_dot: ["w", "∂ẏ"], weight_dot: ["x", "∂y"] };
const SHOWN = 8, LISTED = 12;

export const number = value => {
  const small = value !== 0 && Math.abs(value) < 1e-3;
  return (small ? value.toExponential(2) : Number(value.toPrecision(3)).toString()).replaceAll("-", "−");
};
export const place = position => `[${position.join(", ")}]`;
const signed = value => (value < 0 ? `(${number(value)})` : number(value));

export function position(index, shape) {
  const found = [];
  for (const length of [...shape].reverse()) {
    found.unshift(index % length);
    index = Math.floor(index / length);
  }
  return found;
}

// The terms are sorted: those that are 0 come last.
const nonzero = terms => {
  const first = terms.left.findIndex((left, i) => left * terms.right[i] === 0);
  return first < 0 ? terms.left.length : first;
};

// The formula in symbols, and then in numbers.
export function formula(layer, index, kind, at, terms) {
  const part = kind.replace("_dot", ""), dotted = kind !== part;
  const symbols = { output: "y", input: dotted ? "∂ẋ" : "∂x", weight: dotted ? "∂ẇ" : "∂w" }[part];
  let rule = FORMULAS[layer.kind][part];
  if (dotted) rule = part === "weight" ? PRODUCT_RULE[layer.kind] : rule.replaceAll("∂x", "∂ẋ").replaceAll("∂y", "∂ẏ");
  const hasFactor = terms.weight.length || part === "weight", count = nonzero(terms);
  const parts = Array.from({ length: Math.min(SHOWN, count) }, (_, i) =>
    hasFactor ? `${signed(terms.left[i])}·${signed(terms.right[i])}` : signed(terms.right[i]),
  );
  if (terms.bias !== null) parts.unshift(signed(terms.bias));
  if (count > SHOWN) parts.push(`… ${count - SHOWN} more`);
  if (count < terms.left.length) parts.push(`${terms.left.length - count} products that are 0`);
  const sum = parts.length ? parts.join(" + ") : "0";
  return [`layer ${index}, ${layer.kind}:  ${rule}`, `${symbols}${place(at)} = ${sum} = ${number(terms.total)}`];
}

// The largest products one by one.
export function list(layer, kind, terms) {
  const [left, right] = FACTORS[kind], shapes = { w: layer.params.weight, x: layer.input, y: layer.output };
  const index = { w: terms.weight, x: terms.input, y: terms.output };
  const named = (name, i) => {
    const key = name.includes("y") || name.includes("ẏ") ? "y" : name;
    return `${name}${place(position(index[key][i], shapes[key]))}`;
  };
  const count = nonzero(terms);
  const products = terms.left.slice(0, Math.min(LISTED, count)).map((value, i) => {
    const product = `${number(value)} · ${number(terms.right[i])} = ${number(value * terms.right[i])}`;
    if (kind === "weight_dot") return product;
    const alone = !terms.weight.length && left === "w";
    return alone ? `${named(right, i)} = ${number(terms.right[i])}` : `${named(left, i)} · ${named(right, i)} = ${product}`;
  });
  const rest = count - products.length;
  return products.join(";  ") + (rest > 0 ? `;  and ${rest} more` : "");
}

// A strip of all products, the largest first.
export function strip(canvas, terms) {
  const products = terms.left.map((left, i) => left * terms.right[i]), most = largest(products) || 1;
  canvas.hidden = products.length < 2;
  canvas.width = Math.max(1, products.length);
  canvas.height = 1;
  const context = canvas.getContext("2d");
  products.forEach((product, i) => {
    context.fillStyle = `rgb(${colour(product / most)})`;
    context.fillRect(i, 0, 1, 1);
  });
}

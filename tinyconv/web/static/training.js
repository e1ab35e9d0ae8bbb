// The view of a training: the server trains in a thread, and is asked several times a second.

import { get, guarded, post, showError } from "./api.js";
import { Network } from "./network.js";
import { decode, decodeAll } from "./tensor.js";

const by = id => document.getElementById(id);
const INTERVAL = 150, SLOW = 1000; // milliseconds between two questions, and once the training has ended
const WIDTH = 320, HEIGHT = 120, LEFT = 36, BOTTOM = 14, TOP = 6;
const NAMES = { running: "running", paused: "paused", finished: "finished", failed: "stopped" };

export class Training {
  constructor(layers, onUse) {
    this.network = new Network(layers, by("learning"));
    this.forget();
    this.phase = "none";
    by("start").onclick = guarded(() => this.start());
    by("pause").onclick = guarded(() => this.control(this.phase === "running" ? "pause" : "go"));
    by("one").onclick = guarded(() => this.control("step"));
    by("rate").oninput = guarded(async () => {
      by("rate-value").textContent = this.rate.toPrecision(2);
      if (this.phase !== "none") await post("training", { action: "rate", lr: this.rate });
    });
    by("use").onclick = guarded(async () => {
      await post("training", { action: "use" });
      await onUse();
    });
    this.poll();
  }

  get rate() {
    return 10 ** by("rate").valueAsNumber;
  }

  forget() {
    this.losses = [];
    this.accuracies = [];
  }

  async start() {
    this.asking = true; // what an answer under way tells is of the training before
    this.forget();
    await post("training", { action: "start", lr: this.rate });
    this.phase = "running";
    this.asking = false;
    this.controls();
  }

  async control(action) {
    await post("training", { action });
    this.phase = action === "go" ? "running" : this.phase;
    this.controls();
  }

  async poll() {
    if (this.shown && this.phase !== "none" && !this.asking) {
      try {
        const before = this.losses, seen = `losses=${before.length}&accuracies=${this.accuracies.length}`;
        const answer = await get(`training?${seen}`);
        if (before === this.losses && !this.asking) this.take(answer);
      } catch (error) {
        showError(error.message);
      }
    }
    const ended = this.phase === "finished" || this.phase === "failed";
    setTimeout(() => this.poll(), ended ? SLOW : INTERVAL);
  }

  take(answer) {
    this.losses.push(...answer.losses);
    this.accuracies.push(...answer.accuracies);
    this.phase = answer.phase;
    this.steps = answer.steps;
    if (answer.message) showError(`${answer.message}. Choose a smaller learning rate, and start again.`);
    this.network.show(answer.layers.slice(1).map(array => decode(array).values), "y", decodeAll(answer.params), null);
    this.draw();
    this.controls();
  }

  controls() {
    const goes = this.phase === "running" || this.phase === "paused";
    by("start").textContent = this.phase === "none" ? "Start" : "Start again";
    by("pause").disabled = !goes;
    by("pause").textContent = this.phase === "paused" ? "Go on" : "Pause";
    by("one").disabled = this.phase !== "paused";
    by("use").disabled = this.phase === "none";
    const step = this.losses.length;
    if (this.phase !== "none") by("progress").textContent = `${NAMES[this.phase]}: step ${step} of ${this.steps ?? "…"}`;
    by("progress").dataset.phase = this.phase;
    by("progress").dataset.step = step;
  }

  draw() {
    this.network.draw();
    if (!this.losses.length) return;
    const logs = this.losses.map(loss => Math.log10(Math.max(loss, 1e-3)));
    const ticks = [-3, -2, -1, 0, 1].map(power => [power, `${10 ** power}`]);
    chart(by("losses"), logs.map((loss, step) => [step + 1, loss]), this.steps, [-3, 1], ticks);
    by("last-loss").textContent = this.losses.at(-1).toPrecision(3);
    if (!this.accuracies.length) return;
    const shares = [0, 0.5, 0.9, 1].map(share => [share, `${100 * share} %`]);
    chart(by("accuracies"), this.accuracies, this.steps, [0, 1], shares);
    by("last-accuracy").textContent = `${(100 * this.accuracies.at(-1)[1]).toFixed(2)} %`;
  }
}

function chart(svg, points, steps, [low, high], ticks) {
  const x = step => LEFT + ((WIDTH - LEFT - 4) * step) / steps;
  const y = value => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (Math.min(high, Math.max(low, value)) - low) / (high - low));
  const lines = ticks.map(
    ([value, text]) =>
      `<line class="grid" x1="${LEFT}" x2="${WIDTH}" y1="${y(value)}" y2="${y(value)}"/>` +
      `<text x="${LEFT - 4}" y="${y(value) + 3}" text-anchor="end">${text}</text>`,
  );
  const ends = [0, steps].map(step => `<text x="${x(step)}" y="${HEIGHT - 3}" text-anchor="${step ? "end" : "start"}">${step}</text>`);
  const path = points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  svg.innerHTML = `${lines.join("")}${ends.join("")}<polyline points="${path}"/>`;
}

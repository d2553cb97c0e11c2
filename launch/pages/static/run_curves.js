/** The curves of a run: they are asked for as they grow, kept, and drawn in groups that a reader thinks in. */

import { Chart } from "./chart.js";
import { choices, fill, h } from "./dom.js";
import { axis, short, whole } from "./numbers.js";

const IMAGE_STAGE = "image";
const FUSION_STAGE = "fusion";
const FUSION_PARTS = { loss_d: "image", loss_g: "image", loss_d_low: "low band", loss_g_low: "low band", loss_d_high: "high bands", loss_g_high: "high bands" };
const COMPANION = "companion_";
const SMOOTHING = [0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98];
const USUAL_SMOOTHING = 3;
const STRETCHES = ["mean", "low", "high"];
const FIRST_SCORES = ["fit", "learned.frechet", "learned.kernel", "learned.precision", "learned.recall", "learned_holdout.frechet"];
const FEW_SCORES = 4;
const SCORE_HEIGHT = 150;
const MINUTE = 60;
const HOUR = 3600;

/** Keeps the curves of all components, as far as they have come. */
export class CurveStore {
  constructor() {
    this.cursor = "";
    this.components = [];
  }

  /** Takes an answer of `metrics`; returns whether anything is new. */
  take(answer) {
    const isNew = answer.cursor !== this.cursor || answer.components.some((one) => one.steps.length > 1);
    this.cursor = answer.cursor;
    this.components = answer.components.map((one, i) => merged(this.components[i], one));
    return isNew;
  }

  /** Returns the series of all stages whose number is called `name`. */
  named(name, title = (stage) => stage || "all") {
    return this.components.flatMap((one) =>
      [...one.series].filter(([, own]) => own.name === name).map(([key, own]) => ({ ...own, id: `${one.name}/${key}`, name: title(own.stage, one.name), component: one })),
    );
  }

  /** Returns the names of all numbers, with the stages that have them. */
  names() {
    const stages = {};
    for (const one of this.components) for (const own of one.series.values()) (stages[own.name] ??= []).push(own.stage);
    return stages;
  }
}

/** Returns the curves of one component with those of an answer, which begins at the point `first`. */
function merged(before, answer) {
  const first = answer.first;
  const old = before && first ? before : { steps: [], images: [], wall_s: [], series: new Map() };
  const one = { name: answer.name, series: new Map() };
  for (const column of ["steps", "images", "wall_s"]) one[column] = [...old[column].slice(0, first), ...answer[column]];
  const count = answer.steps.length;
  const keys = new Map([...old.series].map(([key, own]) => [key, [own.stage, own.name]]));
  for (const [stage, numbers] of Object.entries(answer.series)) for (const name of Object.keys(numbers)) keys.set(`${stage}/${name}`, [stage, name]);
  for (const [key, [stage, name]] of keys) {
    const known = old.series.get(key);
    const more = answer.series[stage]?.[name];
    const own = { stage, name };
    for (const column of STRETCHES) {
      if (!known?.[column] && !more?.[column]) continue;
      own[column] = [...(known?.[column]?.slice(0, first) ?? Array(first).fill(null)), ...(more?.[column] ?? Array(count).fill(null))];
    }
    one.series.set(key, own);
  }
  return one;
}

/** The part of the page with all charts; `update` draws what is new. */
export class CurveSection {
  constructor() {
    this.store = new CurveStore();
    this.scores = { evaluations: [], held_out: {} };
    this.facts = {};
    this.by = "images";
    this.smoothing = SMOOTHING[USUAL_SMOOTHING];
    this.charts = new Map();
    this.build();
  }

  build() {
    const slider = h("input", { type: "range", min: 0, max: SMOOTHING.length - 1, step: 1, value: USUAL_SMOOTHING, "aria-label": "Smoothing", "aria-valuetext": String(this.smoothing) });
    const value = h("span", { class: "smoothing-value", "aria-hidden": "true" }, String(this.smoothing));
    slider.addEventListener("input", () => {
      this.smoothing = SMOOTHING[slider.value];
      value.textContent = this.smoothing ? String(this.smoothing) : "none";
      slider.setAttribute("aria-valuetext", value.textContent);
      this.draw();
    });
    const over = choices("Curves over", [["images", "Images"], ["time", "Time"]], this.by, (by) => {
      this.by = by;
      this.draw();
    });
    this.controls = h("div", { class: "row curve-controls" }, over, h("label", { class: "smoothing" }, h("span", { class: "soft small" }, "Smoothing"), slider, value));
    this.losses = h("div", { class: "charts" });
    this.scoreGrid = h("div", { class: "charts small" });
    this.scoreHead = h("div", { class: "section-head" }, h("h2", {}, "Scores of checkpoints"), (this.scoreText = h("p", { class: "soft small" })));
    this.select = h("select", { "aria-label": "Number to show", onchange: () => this.drawOther() });
    this.other = new Chart("Any other number", { zero: false });
    this.other.heading.replaceChildren(h("label", { class: "pick" }, h("span", {}, "Any number "), this.select));
    this.empty = h("p", { class: "soft" }, "No step has ended yet.");
    this.element = h(
      "section",
      { "aria-label": "Curves" },
      h("div", { class: "section-head with-controls" }, h("h2", {}, "Curves"), this.controls),
      this.empty,
      this.losses,
    );
    this.moreText = h("summary", {});
    this.moreGrid = h("div", { class: "charts small" });
    this.more = h("details", { class: "more" }, this.moreText, this.moreGrid);
    this.scoreElement = h("section", { "aria-label": "Scores", hidden: true }, this.scoreHead, this.scoreGrid, this.more);
  }

  /** Draws everything; `scores` where they are new. */
  update(facts, scores) {
    this.facts = facts;
    if (scores) this.scores = scores;
    this.draw();
  }

  draw() {
    const has = this.store.components.some((one) => one.steps.length);
    this.empty.hidden = has;
    this.controls.hidden = !has;
    if (!has) return this.drawScores();
    const groups = this.groups();
    for (const { key, title, series, options, references } of groups) this.chart(key, title, options).update(series, this.view(), references);
    const elements = groups.map(({ key }) => this.charts.get(key).element);
    if (this.names()) elements.push(this.other.element);
    if (elements.length !== this.losses.children.length || elements.some((one, i) => this.losses.children[i] !== one)) fill(this.losses, elements);
    this.losses.classList.toggle("in-pairs", elements.length === 2 || elements.length === 4);
    this.drawOther();
    this.drawScores();
  }

  chart(key, title, options) {
    if (!this.charts.has(key)) this.charts.set(key, new Chart(title, options));
    return this.charts.get(key);
  }

  view() {
    if (this.by === "images") return { x: (value, whole_) => (whole_ ? whole(Math.round(value)) : axis(value)), xName: "images", smoothing: this.smoothing };
    const longest = Math.max(...this.store.components.map((one) => one.wall_s[one.wall_s.length - 1] ?? 0));
    const [unit, xName] = longest > 3 * HOUR ? [HOUR, "hours"] : longest > 3 * MINUTE ? [MINUTE, "minutes"] : [1, "seconds"];
    return { x: (value, exact) => (exact ? (value / unit).toFixed(unit === 1 ? 0 : 2) : axis(value / unit)), ticks: (low, high, width) => timeTicks(low / unit, high / unit, width).map((x) => x * unit), xName, smoothing: this.smoothing };
  }

  /** Returns the charts that this run has: what is asked about most comes first. */
  groups() {
    const names = this.store.names();
    const groups = [];
    const add = (key, title, series, options = {}, references = []) => series.length && groups.push({ key, title, series, options, references });
    add("loss", "Loss of flow experts", this.withHeldOut(this.drawn("loss")));
    if (names.loss_d?.includes(FUSION_STAGE)) {
      add("loss_d", "Losses of discriminators", ["loss_d", "loss_d_low", "loss_d_high"].flatMap((name) => this.drawn(name, () => FUSION_PARTS[name])));
      add("loss_g", "Losses of generators", ["loss_g", "loss_g_low", "loss_g_high"].flatMap((name) => this.drawn(name, () => FUSION_PARTS[name])));
      add("lambda", "Lambda: share of the bands in the images", ["lambda", "auxiliary_share"].flatMap((name) => this.drawn(name, () => name.replace("_", " "))));
    } else {
      add("loss_d", "Losses of discriminators", this.drawn("loss_d"));
      add("loss_g", "Losses of generators", this.drawn("loss_g"));
    }
    const alphas = Object.entries(this.facts.alphas ?? {}).flatMap(([stage, own]) => own.map((name) => [stage, name]));
    add(
      "alpha",
      alphas.length > 1 ? "Alpha: share of the chain, by band" : "Alpha: share of the chain in the images",
      alphas.flatMap(([stage, name]) => this.drawn(name, () => name, stage)),
    );
    for (const name of Object.keys(names).filter((own) => own.startsWith(COMPANION))) add(name, `Companion: ${name.slice(COMPANION.length).replaceAll("_", " ")}`, this.drawn(name), { zero: false });
    const isFree = this.store.components.length > 1;
    add("rate", "Images per second", this.drawn("images_per_s", (stage, component) => component || "run"));
    add("seconds", "Seconds of a step, by stage", isFree || (names.seconds?.length ?? 0) > 1 ? this.drawn("seconds") : []);
    return groups;
  }

  /** Returns the series called `name` as a chart has them. */
  drawn(name, title = (stage) => stage, stage = null) {
    return this.store
      .named(name, title)
      .filter((one) => stage === null || one.stage === stage)
      .map(({ id, name: own, component, mean, low, high }) => ({ id, name: own, x: this.by === "images" ? component.images : component.wall_s, y: mean, low, high }));
  }

  /** Adds the losses on held-out images to those of training. */
  withHeldOut(series) {
    const more = series.flatMap((one) => {
      const points = this.scores.held_out[one.name];
      if (!points?.length || this.by !== "images") return [];
      return [{ id: `${one.id}/held out`, name: one.name, mate: one.id, marks: true, x: points.map(([x]) => x), y: points.map(([, y]) => y) }];
    });
    return [...series, ...more];
  }

  /** Returns the names of numbers that no other chart shows, and fills the list with all. */
  names() {
    const names = Object.keys(this.store.names()).sort();
    const signature = names.join();
    if (signature === this.nameSignature) return names.length;
    this.nameSignature = signature;
    const usual = ["sample_deviation", "waited_s", "seconds"].find((name) => names.includes(name)) ?? names[0];
    const chosen = this.select.value || usual;
    fill(this.select, names.map((name) => h("option", { value: name, selected: name === chosen }, name)));
    return names.length;
  }

  drawOther() {
    const name = this.select.value;
    if (!name) return;
    if (this.other.title !== name) {
      this.other.title = name;
      this.other.touched = false;
      this.other.log = null;
    }
    this.other.update(this.drawn(name, (stage, component) => stage || component || "run"), this.view());
  }

  drawScores() {
    const { evaluations } = this.scores;
    this.scoreElement.hidden = !evaluations.length;
    if (!evaluations.length) return;
    const newest = evaluations[evaluations.length - 1];
    const best = evaluations.reduce((a, b) => ((b.fit ?? Infinity) < (a.fit ?? Infinity) ? b : a));
    const by = newest.yardstick === "learned" ? "learned features" : "statistics of bands";
    const text = newest.fit === null ? "" : `By ${by}, step ${whole(newest.step)} is ${short(newest.fit)} times as far from real images as these are from each other${best === newest ? ", the best so far" : `; the best, step ${whole(best.step)}, is ${short(best.fit)} times`}.${newest.collapse ? ` Collapse: ${newest.collapse}.` : ""}`;
    if (this.scoreText.textContent !== text) this.scoreText.textContent = text;
    const metrics = Object.keys(newest.scores).filter((name) => !name.startsWith("validation_loss."));
    const first = FIRST_SCORES.filter((name) => name === "fit" || metrics.includes(name));
    const order = [...first, ...metrics.filter((name) => !first.includes(name) && (!name.includes(".") || name.startsWith("neighbours.")))];
    const x = evaluations.map((one) => one.images);
    const place = evaluations.indexOf(best);
    const shown = order.map((name) => {
      const y = evaluations.map((one) => (name === "fit" ? one.fit : (one.scores[name]?.[0] ?? null)));
      const floor = name === "fit" ? 1 : newest.scores[name]?.[1];
      const chart = this.chart(`score/${name}`, name === "fit" ? "Distance to real images" : words(name), { height: SCORE_HEIGHT });
      const view = { x: (value, exact) => (exact ? whole(value) : axis(value)), xName: "images", smoothing: 0 };
      chart.update([{ id: name, name: "generated", x, y, marks: true, best: place }], view, floor === null || floor === undefined ? [] : [{ y: floor, name: `real images ${short(floor)}` }]);
      return chart.element;
    });
    if (shown.length !== this.scoreGrid.children.length + this.moreGrid.children.length) {
      fill(this.scoreGrid, shown.slice(0, FEW_SCORES));
      fill(this.moreGrid, shown.slice(FEW_SCORES));
      this.more.hidden = shown.length <= FEW_SCORES;
      this.moreText.textContent = `${shown.length - FEW_SCORES} more measures`;
    }
  }
}

/** Returns the name of a metric in words: "learned frechet". */
function words(name) {
  return name.replace("neighbours.", "").replaceAll(/[._]/g, " ");
}

function timeTicks(low, high, width) {
  const most = Math.max(3, Math.floor(width / 85));
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * 1.0001; n++) ticks.push(Number((n * step).toPrecision(10)));
  return ticks;
}

/** Samples over time: the grid of every checkpoint, and a slider through them that follows the newest at its right end. */

import { getBlob } from "./api.js";
import { setText } from "./chart.js";
import { h } from "./dom.js";
import { motionButton, setPicture } from "./motion.js";
import { whole } from "./numbers.js";

const MOST_KEPT = 60;
const PLAY_MS = 350;

export class SampleSection {
  constructor(base) {
    this.base = base;
    this.grids = [];
    this.follows = true;
    this.place = 0;
    this.kept = new Map();
    this.build();
  }

  build() {
    this.picture = h("img", { class: "pixels grid-picture", alt: "", hidden: true });
    this.frame = h("div", { class: "grid-frame" }, this.picture);
    this.caption = h("figcaption", { class: "grid-caption" }, (this.when = h("strong", {})), (this.mark = h("span", { class: "chip best", hidden: true }, "best")), (this.which = h("span", { class: "soft small" })));
    this.slider = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Checkpoint of the samples", oninput: () => this.turn(Number(this.slider.value)) });
    this.play = h("button", { type: "button", onclick: () => this.turnPlay() }, "Play");
    this.newest = h("button", { type: "button", onclick: () => this.turn(this.grids.length - 1) }, "Newest");
    this.motion = motionButton("clip");
    this.problem = h("p", { class: "notice bad small", role: "alert", hidden: true });
    this.empty = h("p", { class: "soft" }, "The first grid of samples comes with the first checkpoint.");
    this.body = h("figure", { class: "grid-figure", hidden: true }, this.caption, this.frame, this.slider, h("div", { class: "row grid-buttons" }, this.play, this.newest, this.motion));
    this.element = h("section", { class: "card samples", "aria-label": "Samples" }, h("h2", {}, "Samples"), this.empty, this.body, this.problem);
  }

  update(facts) {
    const shown = this.grids[this.place];
    this.grids = facts.samples;
    this.best = facts.best?.step ?? null;
    const has = this.grids.length > 0;
    this.body.hidden = !has;
    this.empty.hidden = has;
    if (!has) {
      setText(this.empty, facts.is_free ? "The first grid of samples comes when every component has a checkpoint." : "The first grid of samples comes with the first checkpoint.");
      return;
    }
    const last = this.grids.length - 1;
    if (Number(this.slider.max) !== last) this.slider.max = last;
    const same = this.grids.findIndex((one) => one.images === shown?.images);
    this.turn(this.follows || same < 0 ? last : same, true);
    this.play.hidden = this.newest.hidden = last === 0;
    this.motion.hidden = !this.grids.some((one) => one.plays);
  }

  /** Shows the grid at `place`; at the right end it follows from then on. */
  turn(place, byItself = false) {
    this.place = place;
    if (!byItself) this.follows = place === this.grids.length - 1;
    this.slider.value = place;
    this.newest.disabled = place === this.grids.length - 1;
    const { images, step } = this.grids[place];
    setText(this.when, `${whole(images)} images seen`);
    setText(this.which, `${step === null ? "" : `step ${whole(step)}, `}${place + 1} of ${this.grids.length}`);
    this.mark.hidden = step === null || step !== this.best;
    this.slider.setAttribute("aria-valuetext", `${whole(images)} images seen, ${place + 1} of ${this.grids.length}`);
    this.show(place);
  }

  async show(place) {
    const grid = this.grids[place];
    const key = keyOf(grid);
    if (this.shown === key) return;
    this.wanted = key;
    try {
      const url = await this.load(grid);
      if (this.wanted !== key) return;
      const ready = new Image();
      ready.src = url;
      await ready.decode();
      if (this.wanted !== key) return;
      if (!grid.plays) delete this.picture.dataset.clip;
      setPicture(this.picture, url, grid.plays);
      this.picture.alt = `${grid.plays ? "Clips" : "Images"} that the model draws after having seen ${whole(grid.images)}: the same seeds in every grid`;
      this.picture.width = ready.naturalWidth;
      this.picture.height = ready.naturalHeight;
      this.picture.hidden = false;
      this.shown = key;
      this.problem.hidden = true;
      for (const other of [place - 1, place + 1]) if (this.grids[other]) this.load(this.grids[other]).catch(() => {});
    } catch (error) {
      if (this.wanted !== key) return;
      setText(this.problem, error.message);
      this.problem.hidden = false;
    }
  }

  /** Returns the address of the picture, which is loaded once. */
  load(grid) {
    const key = keyOf(grid);
    if (!this.kept.has(key)) {
      const loading = getBlob(`${this.base}samples/${String(grid.images).padStart(9, "0")}.${grid.plays ? "webp" : "png"}`).then((blob) => URL.createObjectURL(blob));
      loading.catch(() => this.kept.delete(key));
      this.kept.set(key, loading);
      this.forget();
    }
    return this.kept.get(key);
  }

  forget() {
    for (const [key, loading] of this.kept) {
      if (this.kept.size <= MOST_KEPT) return;
      if (key === this.shown || key === this.wanted) continue;
      this.kept.delete(key);
      loading.then(URL.revokeObjectURL, () => {});
    }
  }

  turnPlay() {
    if (this.timer) return this.stop();
    if (this.place === this.grids.length - 1) this.turn(0);
    setText(this.play, "Stop");
    this.timer = setInterval(() => {
      if (this.place < this.grids.length - 1) this.turn(this.place + 1);
      if (this.place >= this.grids.length - 1) this.stop();
    }, PLAY_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    setText(this.play, "Play");
  }
}

function keyOf(grid) {
  return `${grid.images}.${grid.size_bytes}`;
}

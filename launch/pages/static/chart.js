/** Line charts as SVG: axes, a legend that turns lines on and off, a crosshair for mouse, finger and keyboard, a table. */

import { fill, h, s } from "./dom.js";
import { axis, short } from "./numbers.js";

/** Lines that a chart shows at most; others are drawn as one. */
export const MOST_LINES = 8;
const HEIGHT = 232;
const MARGIN = { top: 10, right: 12, bottom: 26, left: 52 };
const EDGE = 7;
const RAW_LINES = 4;
const BAND_LINES = 2;
const TABLE_ROWS = 20;
const MANY_DECADES = 30;
const GROUP = "others";
const NEAR_ZERO = 0.1;

/**
 * One chart. `update` draws it; what the reader has chosen, and where the crosshair is, stays.
 *
 * A series is {id, name, x, y, low, high, marks, dotted, mate}: `low` and `high` are the spread that a point stands for,
 * `marks` draws points, `mate` is the id of the series whose colour it has.
 */
export class Chart {
  constructor(title, { zero = true, format = short, height = HEIGHT } = {}) {
    this.title = title;
    this.zero = zero;
    this.height = height;
    this.format = format;
    this.series = [];
    this.references = [];
    this.view = { x: (value) => axis(value), xName: "images", smoothing: 0 };
    this.log = null;
    this.chosen = null;
    this.at = null;
    this.build();
  }

  build() {
    this.plot = s("svg", { class: "plot", role: "img", tabindex: "0", height: this.height });
    this.readout = h("div", { class: "readout", hidden: true, "aria-hidden": "true" });
    this.spoken = h("p", { class: "unseen", "aria-live": "polite" });
    this.legend = h("div", { class: "chart-legend", role: "group", "aria-label": `Lines of: ${this.title}` });
    this.logSwitch = h("button", { type: "button", class: "quiet log", "aria-pressed": "false", onclick: () => this.turnLog() }, "Log scale");
    this.table = h("details", { class: "chart-table", ontoggle: () => this.fillTable() }, h("summary", {}, "Table"), h("div", { class: "wide", tabindex: "0", role: "group", "aria-label": `Table: ${this.title}` }));
    this.heading = h("h3", {}, this.title);
    this.element = h(
      "figure",
      { class: "chart card" },
      h("figcaption", { class: "chart-head" }, this.heading, this.logSwitch),
      h("div", { class: "plot-box" }, this.plot, this.readout),
      this.spoken,
      this.legend,
      this.table,
    );
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.leave());
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("blur", () => this.leave());
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  /** Draws `series`, with horizontal lines [{y, name}] for comparison. */
  update(series, view, references = []) {
    this.series = series;
    this.view = view;
    this.references = references;
    const own = series.filter((one) => !one.mate);
    this.chosen = (this.chosen ?? []).filter((id) => own.some((one) => one.id === id));
    if (!this.touched) this.chosen = firstChosen(own);
    this.drawLegend();
    this.draw();
    if (this.table.open) this.fillTable();
  }

  /** Returns the lines that are drawn: those chosen, and one for all others where there are more than MOST_LINES. */
  shown() {
    const own = this.series.filter((one) => !one.mate);
    const lines = this.series.filter((one) => this.chosen.includes(one.mate ?? one.id));
    const rest = own.length > MOST_LINES ? own.filter((one) => !this.chosen.includes(one.id)) : [];
    const drawn = lines.map((one) => ({ ...one, colour: this.colour(one.mate ?? one.id), drawn: smoothed(one, this.view.smoothing) }));
    if (!rest.length) return drawn;
    const group = grouped(rest);
    return [{ ...group, colour: "rest", drawn: smoothed(group, this.view.smoothing) }, ...drawn];
  }

  /** Returns the number of the colour of a line: its place among all, or where there are more than colours, among those shown. */
  colour(id) {
    const own = this.series.filter((one) => !one.mate);
    const all = own.length > MOST_LINES ? this.chosen : own.map((one) => one.id);
    return all.indexOf(id) % MOST_LINES;
  }

  drawLegend() {
    const own = this.series.filter((one) => !one.mate);
    const many = own.length > MOST_LINES;
    const signature = JSON.stringify([own.map((one) => one.id), this.chosen, this.series.length]);
    if (signature !== this.legendSignature) {
      this.legendSignature = signature;
      const focused = this.legend.contains(document.activeElement) ? document.activeElement.dataset.id : null;
      this.values = {};
      const buttons = own.map((one) => {
        const on = this.chosen.includes(one.id);
        this.values[one.id] = h("span", { class: "last" });
        return h(
          "button",
          { type: "button", class: "key", "aria-pressed": String(on), "data-id": one.id, onclick: () => this.toggle(one.id) },
          swatch(on ? this.colour(one.id) : many ? "rest" : "off"),
          h("span", {}, one.name),
          this.values[one.id],
        );
      });
      const mates = this.series.some((one) => one.mate);
      fill(
        this.legend,
        own.length > 1 || mates ? buttons : [h("span", { class: "key plain" }, "newest ", this.values[own[0]?.id] ?? "")],
        many ? h("span", { class: "key plain" }, swatch("rest"), `${own.length - this.chosen.length} others, their mean and spread`) : null,
        mates ? h("span", { class: "key plain" }, swatch("mate"), "on held-out images") : null,
        this.references.map((one) => h("span", { class: "key plain" }, swatch("reference"), one.name)),
      );
      if (focused !== null) this.legend.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
    }
    for (const one of own) setText(this.values[one.id], this.format(last(one.y)));
  }

  toggle(id) {
    this.touched = true;
    const many = this.series.filter((one) => !one.mate).length > MOST_LINES;
    if (this.chosen.includes(id)) this.chosen = this.chosen.filter((other) => other !== id);
    else this.chosen = [...this.chosen, id].slice(many ? -(MOST_LINES - 1) : 0);
    this.drawLegend();
    this.draw();
  }

  turnLog() {
    this.log = !this.isLog;
    this.draw();
  }

  // -- drawing -------------------------------------------------------------------------------

  draw() {
    const width = this.plot.clientWidth;
    if (!width || !this.series.length) return;
    const lines = this.shown();
    const [low, high] = this.bounds(lines);
    const spansDecades = low.positive > 0 && high / low.positive >= MANY_DECADES;
    this.logSwitch.hidden = !spansDecades;
    this.isLog = spansDecades && (this.log ?? false);
    this.logSwitch.setAttribute("aria-pressed", String(this.isLog));
    const frame = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: this.height - MARGIN.bottom };
    const xs = lines.flatMap((one) => [one.x[0], one.x[one.x.length - 1]]).filter((x) => x !== undefined);
    const final = Math.max(...xs);
    const first = fromZero(Math.min(...xs), final);
    this.scaleX = linear(first === final ? first - 1 : first, first === final ? final + 1 : final, frame.left, frame.right);
    const yTicks = this.isLog ? logTicks(low.positive, high) : niceTicks(low.value, high, this.height > 180 ? 5 : 3);
    const [bottom, top] = this.isLog ? [low.positive, high] : [Math.min(low.value, yTicks[0]), Math.max(high, yTicks[yTicks.length - 1])];
    this.scaleY = this.isLog ? logarithmic(bottom, top, frame.bottom, frame.top) : linear(bottom, top, frame.bottom, frame.top);
    this.frame = frame;
    this.lines = lines;
    this.plot.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.plot.setAttribute("aria-label", this.summary(lines));
    const clip = `clip-${(this.number ??= nextNumber())}`;
    fill(
      this.plot,
      s("defs", {}, s("clipPath", { id: clip }, s("rect", { x: frame.left - EDGE, y: frame.top - EDGE, width: frame.right - frame.left + 2 * EDGE, height: frame.bottom - frame.top + 2 * EDGE }))),
      this.axes(yTicks, width),
      s("g", { "clip-path": `url(#${clip})` }, this.references.map((one) => this.reference(one)), lines.map((one) => this.line(one, lines.length))),
      (this.cross = s("g", { class: "cross" })),
    );
    if (this.at !== null) this.showAt(this.at, false);
  }

  /** Returns the lowest and highest value that has to be seen: one peak among hundreds of points is cut off. */
  bounds(lines) {
    const values = [...lines.flatMap((one) => one.drawn), ...this.references.map((one) => one.y)].filter((value) => Number.isFinite(value));
    const raw = lines.length <= RAW_LINES ? lines.flatMap((one) => one.y).filter((value) => value !== null) : [];
    const all = [...values, ...raw].sort((a, b) => a - b);
    if (!all.length) return [{ value: 0, positive: 0 }, 1];
    const cut = all.length > 400 ? Math.floor(all.length * 0.004) : 0;
    let low = all[cut];
    let high = all[all.length - 1 - cut];
    const positive = low > 0 ? low : 0;
    if (this.zero && low > 0 && low < 0.6 * high) low = 0;
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    return [{ value: low, positive }, high];
  }

  axes(yTicks, width) {
    const { left, right, bottom } = this.frame;
    const [first, final] = this.scaleX.domain;
    const xTicks = this.view.ticks ? this.view.ticks(first, final, width) : niceTicks(first, final, Math.max(3, Math.floor(width / 85))).filter((x) => x >= first && x <= final);
    return s(
      "g",
      { class: "axes" },
      yTicks.map((y) => [
        s("line", { x1: left, x2: right, y1: this.scaleY(y), y2: this.scaleY(y), class: "rule" }),
        s("text", { x: left - 7, y: this.scaleY(y) + 4, "text-anchor": "end" }, axis(y)),
      ]),
      s("text", { x: 0, y: bottom + 18 }, this.view.xName),
      xTicks.map((x) => s("text", { x: this.scaleX(x), y: bottom + 18, "text-anchor": this.anchor(x, this.view.x(x)) }, this.view.x(x))),
    );
  }

  anchor(x, text) {
    const place = this.scaleX(x);
    if (place > this.frame.right - 16) return "end";
    return place < this.frame.left + 14 && text.length > 1 ? "start" : "middle";
  }

  reference({ y }) {
    return s("line", { x1: this.frame.left, x2: this.frame.right, y1: this.scaleY(y), y2: this.scaleY(y), class: "reference" });
  }

  line(one, count) {
    const kind = `line c-${one.colour}${one.mate ? " mate" : ""}`;
    const parts = [];
    if (one.low && (count <= BAND_LINES || one.id === GROUP)) parts.push(s("path", { class: `band c-${one.colour}`, d: this.area(one) }));
    if (this.view.smoothing && !one.marks && count <= RAW_LINES && one.id !== GROUP) parts.push(s("path", { class: `${kind} raw`, d: this.path(one.x, one.y) }));
    parts.push(s("path", { class: kind, d: this.path(one.x, one.drawn) }));
    if (one.marks && one.x.length <= 120)
      parts.push(one.x.map((x, i) => one.y[i] !== null && s("circle", { class: `dot c-${one.colour}${one.best === i ? " best" : ""}`, cx: this.scaleX(x), cy: this.scaleY(one.y[i]), r: one.best === i ? 5 : 2.8 })));
    return parts;
  }

  path(xs, ys) {
    let d = "";
    let pen = "M";
    for (let i = 0; i < xs.length; i++) {
      const y = ys[i] === null || ys[i] === undefined ? NaN : this.scaleY(ys[i]);
      if (!Number.isFinite(y)) {
        pen = "M";
        continue;
      }
      d += `${pen}${this.scaleX(xs[i]).toFixed(1)},${y.toFixed(1)}`;
      pen = "L";
    }
    return d;
  }

  area(one) {
    const places = one.x.map((x, i) => [x, one.low[i], one.high[i]]).filter(([, low, high]) => low !== null && high !== null);
    const at = (x, y) => `${this.scaleX(x).toFixed(1)},${this.inside(y).toFixed(1)}`;
    const above = places.map(([x, , high]) => at(x, high));
    const below = places.map(([x, low]) => at(x, low)).reverse();
    return places.length > 1 ? `M${above.join("L")}L${below.join("L")}Z` : "";
  }

  inside(y) {
    const place = this.scaleY(y);
    return Number.isFinite(place) ? Math.min(Math.max(place, -50), this.height + 50) : this.height;
  }

  summary(lines) {
    const parts = lines.slice(0, MOST_LINES).map((one) => `${one.name} ${this.format(last(one.y))}`);
    return `${this.title} over ${this.view.xName}. Newest: ${parts.join(", ")}. Arrow keys read values.`;
  }

  // -- crosshair -----------------------------------------------------------------------------

  point(event) {
    if (!this.frame) return;
    const box = this.plot.getBoundingClientRect();
    this.showAt(this.scaleX.inverse(event.clientX - box.left), false);
  }

  leave() {
    this.at = null;
    this.readout.hidden = true;
    if (this.cross) fill(this.cross);
  }

  key(event) {
    const longest = this.lines?.reduce((best, one) => (one.x.length > best.x.length ? one : best));
    if (!longest) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") return this.leave();
    if (!(event.key in steps)) return;
    event.preventDefault();
    const now = this.at === null ? longest.x.length - 1 : nearest(longest.x, this.at) + steps[event.key];
    this.showAt(longest.x[Math.min(Math.max(now, 0), longest.x.length - 1)], true);
  }

  /** Puts the crosshair at the point nearest to `x`, and says its values where a key has asked for them. */
  showAt(x, aloud) {
    const longest = this.lines.reduce((best, one) => (one.x.length > best.x.length ? one : best));
    if (!longest.x.length) return;
    const own = longest.x[nearest(longest.x, x)];
    this.at = own;
    const rows = this.lines
      .map((one) => {
        const i = nearest(one.x, own);
        return { one, x: one.x[i], y: one.drawn[i], raw: one.y[i] };
      })
      .filter(({ y }) => y !== null && y !== undefined && Number.isFinite(y));
    const place = this.scaleX(own);
    fill(
      this.cross,
      s("line", { x1: place, x2: place, y1: this.frame.top, y2: this.frame.bottom, class: "hair" }),
      rows.map(({ one, x: at, y }) => s("circle", { cx: this.scaleX(at), cy: this.inside(y), r: 3.5, class: `dot c-${one.colour}` })),
    );
    const head = `${this.view.x(own, true)} ${this.view.xName}`;
    fill(
      this.readout,
      h("strong", {}, head),
      rows.map(({ one, raw }) => h("span", { class: "value" }, swatch(one.mate ? "mate" : one.colour), h("span", {}, one.name), h("b", {}, this.format(raw)))),
    );
    this.readout.hidden = false;
    const width = this.readout.offsetWidth;
    const left = place + width + 14 < this.plot.clientWidth ? place + 10 : place - width - 10;
    this.readout.style.left = `${Math.max(0, Math.min(left, this.plot.clientWidth - width))}px`;
    if (aloud) setText(this.spoken, `${head}: ${rows.map(({ one, raw }) => `${one.name} ${this.format(raw)}`).join(", ")}`);
  }

  // -- table ---------------------------------------------------------------------------------

  fillTable() {
    if (!this.table.open || !this.series.length) return;
    const longest = this.series.reduce((best, one) => (one.x.length > best.x.length ? one : best));
    const apart = Math.max(1, Math.ceil(longest.x.length / TABLE_ROWS));
    const rows = [];
    for (let i = longest.x.length - 1; i >= 0; i -= apart) rows.push(longest.x[i]);
    fill(
      this.table.lastChild,
      h(
        "table",
        {},
        h("caption", { class: "unseen" }, this.title),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, this.view.xName), this.series.map((one) => h("th", { scope: "col", class: "number" }, one.mate ? `${one.name}, held out` : one.name)))),
        h("tbody", {}, rows.map((x) => h("tr", {}, h("th", { scope: "row" }, this.view.x(x, true)), this.series.map((one) => h("td", { class: "number" }, this.format(valueAt(one, x))))))),
      ),
    );
  }
}

/** Returns the ids of the lines that are drawn at first: of many the first ones and the last, which is the image stage's. */
function firstChosen(series) {
  const ids = series.map((one) => one.id);
  return ids.length > MOST_LINES ? [...ids.slice(0, MOST_LINES - 2), ids[ids.length - 1]] : ids;
}

/** Returns where an axis begins: at 0 where the first value is near it. */
function fromZero(first, final) {
  return first > 0 && first < NEAR_ZERO * final ? 0 : first;
}

/** Changes the text of an element where it is another one: what stays is not drawn anew. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function swatch(colour) {
  const line = s("svg", { class: "swatch", width: 22, height: 10, viewBox: "0 0 22 10", "aria-hidden": "true" });
  if (colour === "mate") line.append(s("line", { x1: 1, x2: 21, y1: 5, y2: 5, class: "line mate c-rest" }), s("circle", { cx: 11, cy: 5, r: 2.8, class: "dot c-rest" }));
  else if (colour === "reference") line.append(s("line", { x1: 1, x2: 21, y1: 5, y2: 5, class: "reference" }));
  else line.append(s("line", { x1: 1, x2: 21, y1: 5, y2: 5, class: `line c-${colour}` }));
  return line;
}

/** Returns the exponential moving average of the values of a series, of which those before the first do not count. */
function smoothed(one, weight) {
  if (!weight || one.marks) return one.y;
  let total = 0;
  let share = 0;
  return one.y.map((y) => {
    if (y === null || y === undefined) return null;
    total = weight * total + (1 - weight) * y;
    share = weight * share + (1 - weight);
    return total / share;
  });
}

/** Returns one series for several: their mean, and the lowest and highest of their values. */
function grouped(series) {
  const longest = series.reduce((best, one) => (one.x.length > best.x.length ? one : best));
  const values = longest.x.map((x) => series.map((one) => valueAt(one, x)).filter((y) => y !== null && y !== undefined));
  return {
    id: GROUP,
    name: `${series.length} others`,
    x: longest.x,
    y: values.map((own) => (own.length ? own.reduce((a, b) => a + b, 0) / own.length : null)),
    low: values.map((own) => (own.length ? Math.min(...own) : null)),
    high: values.map((own) => (own.length ? Math.max(...own) : null)),
  };
}

function valueAt(one, x) {
  if (!one.x.length || x > one.x[one.x.length - 1]) return one.marks && one.x.length ? one.y[one.y.length - 1] : null;
  return one.y[nearest(one.x, x)];
}

function nearest(xs, x) {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle;
    else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

function last(values) {
  for (let i = values.length - 1; i >= 0; i--) if (values[i] !== null && values[i] !== undefined) return values[i];
  return null;
}

function linear(from, to, start, end) {
  const scale = (value) => start + ((value - from) / (to - from)) * (end - start);
  scale.inverse = (place) => from + ((place - start) / (end - start)) * (to - from);
  scale.domain = [from, to];
  return scale;
}

function logarithmic(from, to, start, end) {
  const inner = linear(Math.log10(from), Math.log10(to), start, end);
  return (value) => (value > 0 ? inner(Math.log10(value)) : NaN);
}

/** Returns round numbers that divide a range into about `most` parts, the first at or below its beginning. */
export function niceTicks(low, high, most = 5) {
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const ticks = [];
  for (let n = Math.floor(low / step + 1e-9); n * step <= high + step * 0.999; n++) ticks.push(Number((n * step).toPrecision(10)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const decades = Math.log10(high / low);
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const factor of decades > 3 ? [1] : [1, 3]) {
      const tick = Number((factor * 10 ** power).toPrecision(3));
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  return ticks;
}

let charts = 0;
function nextNumber() {
  return ++charts;
}

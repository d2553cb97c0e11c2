/** Stages and who waits for whom: what a step of each takes and waits, and when each did the last steps. */

import { setText } from "./chart.js";
import { fill, h, s } from "./dom.js";
import { counted, duration, short, span, whole } from "./numbers.js";

/** States in one word. */
export const STATE_WORDS = { new: "Not begun", begins: "Begins", trains: "Trains", waits: "Waits", ended: "Ended", stopped: "Stopped", failed: "Failed" };
const ROW = 24;
const LEFT_MOST = 110;
const NOTEWORTHY = 0.02;
const MOST_NAMES = 3;
const IMAGE_STAGE = "image";

export class StageSection {
  constructor() {
    this.text = h("p", { class: "soft small" });
    this.rows = h("div", { class: "stage-rows", role: "table", "aria-label": "Stages" });
    this.key = h("p", { class: "stage-key soft small" }, h("span", { class: "bar-sample works" }), "works ", h("span", { class: "bar-sample waits" }), "waits");
    this.times = h("div", { class: "timeline", hidden: true });
    this.element = h("section", { class: "card stages", "aria-label": "Stages" }, h("h2", {}, "Stages"), this.text, this.rows, this.key, this.times);
    new ResizeObserver(() => this.drawTimes()).observe(this.times);
    this.bars = new Map();
  }

  update(facts) {
    this.facts = facts;
    const stages = facts.components.flatMap((one) => one.stages.map((stage) => ({ ...stage, component: one })));
    this.element.hidden = !stages.length;
    if (!stages.length) return;
    setText(this.text, sentence(facts));
    const longest = Math.max(...stages.map((one) => (one.seconds ?? 0) + (one.waited_s ?? 0)), 1e-9);
    if (JSON.stringify(stages.map((one) => one.name)) !== this.names) this.build(stages);
    const slowest = new Set(facts.components.map(slowestOf).filter(Boolean));
    for (const stage of stages) {
      const bar = this.bars.get(stage.name);
      bar.works.style.width = `${(100 * (stage.seconds ?? 0)) / longest}%`;
      bar.waits.style.width = `${(100 * (stage.waited_s ?? 0)) / longest}%`;
      bar.slow.hidden = !slowest.has(stage.name);
      setText(bar.seconds, span(stage.seconds));
      setText(bar.waited, stage.waited_s === null ? "" : `waits ${span(stage.waited_s)}`);
      setText(bar.from, stage.takes_from.length ? `takes from ${shortened(stage.takes_from)}` : "");
      bar.from.title = stage.takes_from.join(", ");
    }
    this.drawTimes();
  }

  build(stages) {
    this.names = JSON.stringify(stages.map((one) => one.name));
    this.bars.clear();
    const rows = stages.map(({ name }) => {
      const bar = {
        works: h("span", { class: "works" }),
        waits: h("span", { class: "waits" }),
        slow: h("span", { class: "chip slow", hidden: true }, "slowest"),
        seconds: h("span", { role: "cell", class: "number" }),
        waited: h("span", { role: "cell", class: "number soft" }),
        from: h("span", { class: "from" }),
      };
      this.bars.set(name, bar);
      return h("div", { class: "stage-row", role: "row" }, h("span", { role: "rowheader", class: "stage-name" }, name, " ", bar.slow, " ", bar.from), bar.seconds, bar.waited, h("span", { class: "bar", "aria-hidden": "true" }, bar.works, bar.waits));
    });
    fill(this.rows, rows);
  }

  /** Draws when the stages of one component did the last steps: components have clocks of their own. */
  drawTimes() {
    const [one] = this.facts?.components.length === 1 ? this.facts.components : [];
    const steps = one?.timeline ?? [];
    const names = one?.stages.map((stage) => stage.name) ?? [];
    this.times.hidden = steps.length < 2 || names.length < 2;
    if (this.times.hidden || !this.times.clientWidth) return;
    const signature = `${steps[steps.length - 1].step}/${steps.length}/${this.times.clientWidth}`;
    if (signature === this.timesDrawn) return;
    this.timesDrawn = signature;
    const width = this.times.clientWidth;
    const left = Math.min(LEFT_MOST, 12 + 7.2 * Math.max(...names.map((name) => name.length)));
    const spans = steps.flatMap((step) => Object.values(step.spans));
    const begun = Math.min(...spans.map(([at]) => at));
    const ended = Math.max(...spans.map(([at, seconds]) => at + seconds));
    const x = (at) => left + ((at - begun) / (ended - begun)) * (width - left - 2);
    const height = names.length * ROW + 22;
    const bars = steps.map((step) =>
      names.map((name, row) => {
        const [at, seconds] = step.spans[name] ?? [];
        if (at === undefined) return null;
        const wide = Math.max(1.5, x(at + seconds) - x(at) - 1);
        return [
          s("rect", { x: x(at), y: row * ROW + 3, width: wide, height: ROW - 6, rx: 2, class: `span-${step.step % 4}` }, s("title", {}, `step ${step.step}: ${name} takes ${span(seconds)}`)),
          wide > 9 + 7 * String(step.step).length && s("text", { x: x(at) + wide / 2, y: row * ROW + ROW / 2 + 4, "text-anchor": "middle", class: `span-text-${step.step % 4}` }, step.step),
        ];
      }),
    );
    const label = `Steps ${steps[0].step} to ${steps[steps.length - 1].step}, ${span(ended - begun)} in all: one row for each of ${listed(names)}`;
    fill(
      this.times,
      h("h3", {}, `Steps ${whole(steps[0].step)} to ${whole(steps[steps.length - 1].step)}: when each stage did them`),
      s(
        "svg",
        { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
        names.map((name, row) => s("text", { x: 0, y: row * ROW + ROW / 2 + 4, class: "row-name" }, name.length * 7.2 > left - 4 ? `${name.slice(0, 13)}…` : name)),
        bars,
        s("text", { x: left, y: height - 5, class: "soft-text" }, "0"),
        s("text", { x: width - 2, y: height - 5, "text-anchor": "end", class: "soft-text" }, span(ended - begun)),
      ),
    );
  }
}

/** Returns the stage of a component that its others wait for; none where there is one alone. */
function slowestOf(component) {
  if (component.stages.length < 2) return null;
  const known = component.stages.filter((stage) => stage.seconds !== null);
  return known.length < 2 ? null : known.reduce((a, b) => (b.seconds > a.seconds ? b : a)).name;
}

/** Whether several stages take nothing from each other; false where the settings are not known. */
function exchangesNothing(component) {
  return component.window !== null && component.stages.every((stage) => !stage.takes_from.length);
}

function sentence(facts) {
  if (facts.is_free) return "Components train at their own pace and wait for their own batches alone; stages of one component keep step. Medians of the last 100 steps.";
  const [one] = facts.components;
  const slow = slowestOf(one);
  if (!slow) return "One stage: it waits for images alone. Medians of the last 100 steps.";
  const inOneProcess = facts.summary.some(([name, text]) => name === "executor" && text === "inline");
  const first = `Slowest is ${slow}, with ${span(one.stages.find((stage) => stage.name === slow).seconds)} of a step. `;
  if (inOneProcess) return `${first}In one process stages take turns: each waits while the others work. Medians of the last 100 steps.`;
  if (exchangesNothing(one)) return `${first}Stages exchange nothing, so none waits for another's output. They wait for their next batch: at most ${counted(one.window, "step")} are in flight (window), which keeps fast stages near the slowest. Medians of the last 100 steps.`;
  const waiting = one.stages.filter((stage) => stage.name !== slow && (stage.waited_s ?? 0) > NOTEWORTHY * (stage.seconds ?? 0));
  const rest = waiting.length ? `${listed(waiting.slice(0, 4).map((stage) => stage.name))}${waiting.length > 4 ? ` and ${waiting.length - 4} more` : ""} wait${waiting.length === 1 ? "s" : ""} for others. ` : "Hardly any stage waits. ";
  return `${first}${rest}Medians of the last 100 steps.`;
}

/** Returns names, which are in the order of the chain, as "LL2, HL2 and image", of many "LL2 … LH1 and image". */
function shortened(names) {
  const last = names[names.length - 1];
  const chain = last === IMAGE_STAGE ? names.slice(0, -1) : names;
  if (chain.length <= MOST_NAMES) return listed(names);
  return `${chain[0]} … ${chain[chain.length - 1]}${chain === names ? "" : ` and ${last}`}`;
}

function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}

/** The components of a run at a free pace: where each is. */
export class ComponentSection {
  constructor() {
    this.rows = h("div", { class: "stage-rows", role: "list" });
    this.element = h("section", { class: "card", "aria-label": "Components", hidden: true }, h("h2", {}, "Components"), this.rows);
  }

  update(facts) {
    this.element.hidden = !facts.is_free;
    if (!facts.is_free) return;
    facts.components.forEach((one, place) => {
      const row = this.rows.children[place] ?? this.rows.appendChild(componentRow());
      const { dot, name, state, images, bar, rest } = row.parts;
      dot.className = `state-dot ${one.state.kind}`;
      setText(name, one.name);
      setText(state, STATE_WORDS[one.state.kind]);
      state.title = one.state.text;
      setText(images, `${whole(one.images)} of ${whole(one.total_images)} images`);
      bar.style.width = `${one.total_images ? (100 * one.images) / one.total_images : 0}%`;
      const texts = [
        one.images_per_s === null ? "" : `${short(one.images_per_s)} images/s`,
        one.left_s === null ? "" : `${duration(one.left_s)} left`,
        one.checkpoint_age_s === null ? "no checkpoint yet" : `checkpoint ${duration(one.checkpoint_age_s)} ago`,
      ];
      setText(rest, texts.filter(Boolean).join("  ·  "));
    });
    while (this.rows.children.length > facts.components.length) this.rows.lastChild.remove();
  }
}

function componentRow() {
  const parts = {
    dot: h("span", { class: "state-dot" }),
    name: h("span", { class: "stage-name" }),
    state: h("span", { class: "soft small" }),
    images: h("span", { class: "number" }),
    bar: h("span", { class: "fill" }),
    rest: h("span", { class: "from" }),
  };
  const row = h("div", { class: "stage-row component-row", role: "listitem" }, h("span", { class: "with-dot" }, parts.dot, parts.name, parts.state), parts.images, h("span", { class: "bar", "aria-hidden": "true" }, parts.bar), parts.rest);
  return Object.assign(row, { parts });
}

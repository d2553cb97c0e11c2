/** The live view of a run: it asks what is new every few seconds, and draws that alone; nothing jumps or flickers. */

import { getJson } from "./api.js";
import { setText } from "./chart.js";
import { fill, h } from "./dom.js";
import { bytes, counted, duration, short, whole } from "./numbers.js";
import { CurveSection } from "./run_curves.js";
import { SampleSection } from "./run_samples.js";
import { ComponentSection, StageSection, STATE_WORDS } from "./run_stages.js";

const TICK_MS = 1000;
const POLL_MS = 2500;
const QUIET_POLL_MS = 10_000;
const ACTIVE = ["begins", "trains", "waits", "new"];
const FEW_STAGES = 3;
const MOST_ROWS = 50;

/**
 * Shows a run below `root` from the answers of the paths that begin with `base`, until `root` leaves the page.
 *
 * `onfacts` gets the facts of every answer.
 */
export function mountRun(root, base, onfacts = () => {}) {
  const page = new RunPage(root, base, onfacts);
  page.begin();
  return page;
}

class RunPage {
  constructor(root, base, onfacts) {
    this.root = root;
    this.base = base;
    this.onfacts = onfacts;
    this.tags = {};
    this.head = new HeadSection();
    this.samples = new SampleSection(base);
    this.stages = new StageSection();
    this.components = new ComponentSection();
    this.curves = new CurveSection();
    this.events = new EventSection();
    this.settings = new SettingsSection(() => this.loadSettings());
    this.problem = h("p", { class: "notice bad", role: "alert", hidden: true });
    this.waiting = h("p", { class: "soft waiting" }, "Reads the run.");
    root.classList.add("run");
    fill(root, this.waiting);
  }

  begin() {
    document.addEventListener("visibilitychange", () => document.hidden || this.poll());
    const ticking = setInterval(() => {
      if (!this.root.isConnected) clearInterval(ticking);
      else if (this.facts) this.head.tick(this.facts, (Date.now() - this.answeredAt) / 1000);
    }, TICK_MS);
    this.poll();
  }

  /** Asks for what is new, once at a time, and again in a while. */
  async poll() {
    clearTimeout(this.timer);
    if (this.polling || document.hidden || !this.root.isConnected) return;
    if (this.root.hidden) {
      this.timer = setTimeout(() => this.poll(), TICK_MS);
      return;
    }
    this.polling = true;
    try {
      await this.look();
      this.problem.hidden = true;
    } catch (error) {
      setText(this.problem, error.message);
      this.problem.hidden = false;
      if (!this.facts) fill(this.root, this.problem);
    }
    this.polling = false;
    const quiet = this.facts && !ACTIVE.includes(this.facts.state.kind);
    const least = (this.facts?.refresh_s ?? 0) * 1000;
    this.timer = setTimeout(() => this.poll(), Math.max(least, quiet ? QUIET_POLL_MS : POLL_MS));
  }

  async look() {
    const facts = await getJson(`${this.base}facts`);
    const curves = await getJson(`${this.base}metrics?after=${encodeURIComponent(this.curves.store.cursor)}`);
    const scores = facts.scores_tag === this.tags.scores ? null : await getJson(`${this.base}scores`);
    this.tags.scores = facts.scores_tag;
    const isNew = this.curves.store.take(curves);
    const isFirst = !this.facts;
    this.facts = facts;
    this.answeredAt = Date.now();
    if (isFirst) this.show();
    this.head.update(facts);
    this.samples.update(facts);
    this.stages.update(facts);
    this.components.update(facts);
    this.events.update(facts);
    this.settings.update(facts);
    if (isNew || scores || isFirst) this.curves.update(facts, scores);
    this.onfacts(facts);
  }

  show() {
    const stages = this.facts.components.reduce((count, one) => count + one.stages.length, 0);
    const [left, right] = stages > FEW_STAGES || !this.facts.samples.length ? [[this.events.checkpoints], []] : [[], [this.events.checkpoints]];
    fill(
      this.root,
      this.problem,
      this.head.element,
      h("div", { class: "run-columns" }, h("div", { class: "run-column" }, this.samples.element, left), h("div", { class: "run-column" }, this.components.element, this.stages.element, right)),
      this.curves.element,
      this.curves.scoreElement,
      this.events.element,
      this.settings.element,
    );
  }

  async loadSettings() {
    if (this.tags.settings === this.facts.settings_tag) return;
    try {
      this.settings.fill(await getJson(`${this.base}settings`));
      this.tags.settings = this.facts.settings_tag;
    } catch (error) {
      this.settings.fill({ yaml: "", fault: error.message });
    }
  }
}

/** State, progress and the numbers that are asked for most. */
class HeadSection {
  constructor() {
    this.dot = h("span", { class: "state-dot" });
    this.word = h("strong", { role: "status" });
    this.text = h("span", { class: "soft small" });
    this.name = h("h1", {});
    this.bar = h("div", { class: "progress", role: "progressbar", "aria-label": "Images seen", "aria-valuemin": 0, "aria-valuemax": 100 }, (this.filled = h("div", { class: "fill" })));
    this.images = h("span", { class: "progress-text" });
    this.percent = h("span", { class: "progress-text soft" });
    this.numbers = {};
    const number = (key, title) => h("div", { class: "figure" }, h("dt", {}, title), (this.numbers[key] = h("dd", {})));
    this.summary = h("p", { class: "soft small summary" });
    this.fault = h("p", { class: "notice bad small", hidden: true });
    this.trace = h("details", { class: "trace", hidden: true }, h("summary", {}, "What Python says of the error"), (this.traceText = h("pre", { tabindex: "0" })));
    this.element = h(
      "section",
      { class: "card run-head", "aria-label": "Progress" },
      h("div", { class: "run-title" }, this.name, h("p", { class: "state" }, this.dot, this.word, this.text)),
      this.fault,
      h("div", { class: "progress-line" }, this.images, this.percent),
      this.bar,
      h("dl", { class: "figures" }, number("rate", "Images/s"), number("left", "Time left"), number("trained", "Trained for"), number("line", "Newest step"), number("checkpoint", "Newest checkpoint")),
      this.trace,
      this.summary,
    );
  }

  update(facts) {
    setText(this.name, facts.name);
    this.name.title = facts.run;
    this.dot.className = `state-dot ${facts.state.kind}`;
    setText(this.word, STATE_WORDS[facts.state.kind]);
    setText(this.text, facts.state.text);
    setText(this.fault, facts.fault ? `What is shown may be older: ${facts.fault}` : "");
    this.fault.hidden = !facts.fault;
    const share = facts.total_images ? Math.min(1, facts.images / facts.total_images) : 0;
    this.filled.style.width = `${100 * share}%`;
    this.bar.setAttribute("aria-valuenow", (100 * share).toFixed(1));
    this.bar.setAttribute("aria-valuetext", `${whole(facts.images)} of ${whole(facts.total_images)} images`);
    const several = facts.components.length > 1 ? `, of ${facts.components.length} components together` : "";
    setText(this.images, `${whole(facts.images)}${facts.total_images === null ? "" : ` of ${whole(facts.total_images)}`} images${several}`);
    setText(this.percent, facts.total_images ? `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %` : "");
    setText(this.numbers.rate, facts.images_per_s === null ? "–" : short(facts.images_per_s));
    setText(this.numbers.trained, duration(facts.trained_s));
    setText(this.summary, facts.summary.map(([name, text]) => `${name}: ${text}`).join("  ·  "));
    this.trace.hidden = !facts.traceback;
    setText(this.traceText, facts.traceback);
    this.tick(facts, 0);
  }

  /** Moves on what grows by itself, `passed` seconds after the answer. */
  tick(facts, passed) {
    const isActive = ["trains", "waits"].includes(facts.state.kind);
    setText(this.numbers.left, facts.state.kind === "ended" ? "none" : facts.left_s === null || !isActive ? "–" : duration(facts.left_s));
    setText(this.numbers.line, facts.line_age_s === null ? "none yet" : `${duration(facts.line_age_s + passed)} ago`);
    const ages = facts.components.map((one) => one.checkpoint_age_s).filter((age) => age !== null);
    setText(this.numbers.checkpoint, ages.length ? `${duration(Math.min(...ages) + passed)} ago` : "none yet");
  }
}

/** Checkpoints, and, where there are any, failures got over and images left out. */
class EventSection {
  constructor() {
    this.checkpointBody = h("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Table of checkpoints" });
    this.checkpoints = h("section", { class: "card", "aria-label": "Checkpoints" }, h("h2", {}, "Checkpoints"), this.checkpointBody);
    this.failureBody = h("div", {});
    this.leftOutBody = h("div", {});
    this.failures = h("section", { class: "card", "aria-label": "Failures got over", hidden: true }, h("h2", {}, "Failures got over"), this.failureBody);
    this.leftOut = h("section", { class: "card", "aria-label": "Images left out", hidden: true }, h("h2", {}, "Images left out"), this.leftOutBody);
    this.element = h("div", { class: "run-columns even", hidden: true }, this.failures, this.leftOut);
    this.drawn = {};
  }

  update(facts) {
    this.redraw("checkpoints", facts.components.map((one) => [one.name, one.checkpoints]).concat([facts.best]), () => this.drawCheckpoints(facts));
    this.redraw("failures", [facts.failures, facts.failures_total], () => this.drawFailures(facts));
    this.redraw("left out", facts.left_out, () => this.drawLeftOut(facts.left_out));
    this.failures.hidden = !facts.failures_total;
    this.leftOut.hidden = !facts.left_out.count;
    this.element.hidden = this.failures.hidden && this.leftOut.hidden;
  }

  /** Draws a part anew where what it shows is not what it showed. */
  redraw(name, values, draw) {
    const signature = JSON.stringify(values);
    if (this.drawn[name] === signature) return;
    this.drawn[name] = signature;
    draw();
  }

  drawCheckpoints(facts) {
    const rows = facts.components.flatMap((one) => one.checkpoints.map((own, i) => ({ ...own, component: one.name, isNewest: i === one.checkpoints.length - 1 })));
    if (!rows.length) return fill(this.checkpointBody, h("p", { class: "soft" }, "None yet."));
    const several = facts.components.length > 1;
    const names = [...(several ? ["Component"] : []), "Step", "Images", "Size", ""];
    const numeric = ["Step", "Images", "Size"];
    fill(
      this.checkpointBody,
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col", class: numeric.includes(name) ? "number" : null }, name || h("span", { class: "unseen" }, "Mark"))))),
        h(
          "tbody",
          {},
          rows.reverse().map((one) =>
            h(
              "tr",
              {},
              several && h("td", {}, one.component),
              h("td", { class: "number" }, whole(one.step)),
              h("td", { class: "number" }, whole(one.images)),
              h("td", { class: "number" }, bytes(one.size_bytes)),
              h("td", {}, one.is_best && h("span", { class: "chip best" }, facts.best?.step === one.step && facts.best.fit !== null ? `best: ${short(facts.best.fit)}` : "best"), one.is_best && " ", one.isNewest && h("span", { class: "chip" }, "newest")),
            ),
          ),
        ),
      ),
    );
  }

  drawFailures({ failures, failures_total: total, components }) {
    if (!total) return;
    const several = components.length > 1;
    const shown = failures.slice(-MOST_ROWS).reverse();
    fill(
      this.failureBody,
      total > shown.length && h("p", { class: "soft small" }, `The last ${shown.length} of ${whole(total)}.`),
      h("ol", { class: "events", reversed: true }, shown.map((one) => h("li", {}, h("span", { class: "chip" }, one.decision), " ", h("strong", {}, `step ${whole(one.step)}`), several ? ` of ${one.component}` : "", one.images === null ? "" : `, ${whole(one.images)} images`, one.trained_s === null ? "" : `, after ${duration(one.trained_s)}`, h("br"), h("span", { class: "small" }, one.text)))),
    );
  }

  drawLeftOut({ count, text, images }) {
    if (!count) return;
    fill(
      this.leftOutBody,
      h("p", {}, h("strong", {}, counted(count, "image")), ` damaged: ${text}`),
      h("details", {}, h("summary", {}, images.length < count ? `The first ${images.length}` : "All of them"), h("ul", { class: "events" }, images.map((one) => h("li", { class: "small" }, h("code", {}, `${one.shard.split("/").pop()}${one.member ? `, ${one.member}` : ""}`), h("br"), one.reason)))),
    );
  }
}

/** The settings of the run, which are asked for when they are opened. */
class SettingsSection {
  constructor(load) {
    this.text = h("pre", { tabindex: "0", "aria-label": "Settings as YAML" });
    this.fault = h("p", { class: "notice bad small", hidden: true });
    this.details = h("details", { ontoggle: () => this.details.open && load() }, h("summary", {}, "Settings, as YAML"), this.fault, this.text);
    this.place = h("p", { class: "soft small" });
    this.load = load;
    this.element = h("section", { class: "card settings", "aria-label": "Settings" }, h("h2", {}, "Settings"), this.place, this.details);
  }

  update(facts) {
    setText(this.place, facts.run);
    if (this.details.open) this.load();
  }

  fill({ yaml, fault }) {
    setText(this.text, yaml);
    this.text.hidden = !yaml;
    setText(this.fault, fault);
    this.fault.hidden = !fault;
  }
}

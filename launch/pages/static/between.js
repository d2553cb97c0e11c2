/** Two pictures that are pinned: the way from one to the other, or the picture of one with the detail of the other. */

import { limited, postJson } from "./api.js";
import { commandBox, saveFile } from "./detail.js";
import { choices, field, fill, h } from "./dom.js";
import { setPicture } from "./motion.js";
import { bodyOf, commandsOf, fileOf, shownBodyOf, textOf } from "./picture.js";

const STOPS = 16;
const AT_ONCE = 6;

/** Returns `element`, and `pinButton(picture, sourceOf)`, a button that pins `picture`, whose image is at `sourceOf()`. */
export function mountBetween(model) {
  const element = h("section", { class: "card between", "aria-label": "Between two pictures", hidden: true });
  const isClip = model.frames > 1;
  const buttons = new Set();
  const pins = []; // {picture, source}, two at most
  let frames = new Map(); // blobs by the body that was asked for
  let stop = new AbortController();
  let way = "move";
  let share = STOPS / 2;
  let level = 1;
  let isNew = false;

  function pinButton(picture, sourceOf) {
    const button = h("button", { type: "button", class: "quiet pin", onclick: () => toggle(picture, sourceOf()) }, "Pin");
    buttons.add({ button, picture });
    mark(button, picture);
    return button;
  }

  function mark(button, picture) {
    const number = pins.findIndex((pin) => same(pin.picture, picture));
    button.setAttribute("aria-pressed", String(number >= 0));
    button.textContent = number >= 0 ? "AB"[number] : "Pin";
    button.setAttribute("aria-label", `${number >= 0 ? "Unpin" : "Pin"} ${textOf(picture)}`);
  }

  function toggle(picture, source) {
    const number = pins.findIndex((pin) => same(pin.picture, picture));
    if (number >= 0) pins.splice(number, 1);
    else {
      if (pins.length === 2) pins.shift();
      pins.push({ picture, source });
    }
    isNew = pins.length === 2;
    for (const entry of buttons) {
      if (entry.button.isConnected || entry.picture === picture) mark(entry.button, entry.picture);
      else buttons.delete(entry);
    }
    build();
  }

  function build() {
    stop.abort();
    stop = new AbortController();
    frames = new Map();
    element.hidden = pins.length === 0;
    if (pins.length === 0) return;
    if (pins.length === 1) {
      fill(element, h("h3", {}, "Between two pictures"), h("div", { class: "ends" }, end(0), h("p", { class: "soft" }, "Pin one more picture to move from this one to it, or to mix the two.")));
      return;
    }
    buildPair();
  }

  function end(number) {
    const { picture, source } = pins[number];
    const away = h("button", { type: "button", class: "quiet", onclick: () => toggle(picture, source) }, "Unpin");
    const image = h("img", { class: "pixels", alt: `${"AB"[number]}: ${textOf(picture)}` });
    setPicture(image, source, isClip);
    return h(
      "div",
      { class: "end" },
      image,
      h("div", { class: "caption" }, h("span", {}, h("b", {}, "AB"[number]), ` seed ${picture.seed}`), away),
    );
  }

  function buildPair() {
    const image = h("img", { class: "pixels", alt: "" });
    let url = "";
    const problem = h("p", { class: "notice bad", role: "alert", hidden: true });
    const commands = h("div", { class: "commands" });
    const slider = h("input", { type: "range", min: 0, max: STOPS, step: 1, value: share });
    const levels = h("select", {}, Array.from({ length: model.levels }, (_, i) => h("option", { value: i + 1 }, `${i + 1}${i ? "" : ", the finest"}`)), isClip && h("option", { value: "time" }, "motion alone"));
    levels.value = String(level);
    const moving = field("From A to B", slider);
    const mixing = field("Detail of B from level", levels);
    const run = limited(AT_ONCE);
    const { signal } = stop;

    function picture(stopNumber = share) {
      const [a, b] = pins.map((pin) => pin.picture);
      const plain = { ...a, gains: {}, resample: [] };
      if (way === "mix") return { ...plain, mix: { coarse: a.seed, fine: b.seed, at: level } };
      const secondCategory = b.category === a.category ? null : b.category;
      return { ...plain, way: { first: a.seed, second: b.seed, share: stopNumber / STOPS, secondCategory } };
    }

    function frame(what) {
      const key = JSON.stringify(bodyOf(what));
      if (!frames.has(key)) frames.set(key, run(async () => (await postJson("v1/images", shownBodyOf(what), signal)).blob()));
      return frames.get(key);
    }

    async function show() {
      moving.hidden = way !== "move";
      mixing.hidden = way !== "mix";
      const what = picture();
      slider.setAttribute("aria-valuetext", `${Math.round((share / STOPS) * 100)} percent`);
      fill(commands, commandsOf(what, model.has_token).map(commandBox));
      try {
        const blob = await frame(what);
        if (signal.aborted || JSON.stringify(bodyOf(what)) !== JSON.stringify(bodyOf(picture()))) return;
        const old = url;
        url = URL.createObjectURL(blob);
        setPicture(image, url, isClip);
        image.alt = textOf(what);
        if (old) URL.revokeObjectURL(old);
        problem.hidden = true;
      } catch (error) {
        if (signal.aborted) return;
        frames.clear();
        problem.textContent = error.message;
        problem.hidden = false;
      }
    }

    /** Asks for the other frames of the way, coarse steps first, so that the slider moves at once. */
    function prefetch() {
      for (let step = STOPS / 2; step >= 1; step /= 2)
        for (let number = 0; number <= STOPS; number += step) frame(picture(number)).catch(() => {});
    }

    slider.addEventListener("input", () => {
      share = Number(slider.value);
      show();
    });
    levels.addEventListener("change", () => {
      level = levels.value === "time" ? "time" : Number(levels.value);
      show();
    });
    const ways = model.drawn_bands.length ? [["move", "Move from A to B"], ["mix", "Picture of A, detail of B"]] : [["move", "Move from A to B"]];
    const turned = (name) => {
      way = name;
      show();
      if (name === "move") prefetch();
    };
    fill(
      element,
      h("h3", {}, "Between two pictures"),
      h("div", { class: "ends" }, end(0), h("div", { class: "end middle" }, image, h("div", { class: "caption" }, h("span", {}, "between"))), end(1)),
      h("div", { class: "row" }, ways.length > 1 && choices("What is between them", ways, way, turned), moving, mixing),
      problem,
      h("div", { class: "row" }, h("button", { type: "button", onclick: save }, "Download")),
      h("details", {}, h("summary", {}, "The command that makes this picture"), commands),
    );

    async function save() {
      const what = picture();
      const blob = what.ending === "npy" ? await (await postJson("v1/images", bodyOf(what), signal)).blob() : await frame(what);
      saveFile(new File([blob], fileOf(what), { type: blob.type }));
    }
    show();
    if (way === "move") prefetch();
    if (isNew) element.scrollIntoView({ block: "nearest" });
    isNew = false;
  }

  return { element, pinButton };
}

/** Returns whether two pictures are drawn from the same noise for the same target. */
function same(one, other) {
  return JSON.stringify(bodyOf(one)) === JSON.stringify(bodyOf(other));
}

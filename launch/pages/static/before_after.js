/** Two images of the same picture, one over the other, with a slider between them. */

import { h } from "./dom.js";

/** Returns `element`, and `set(before, after)`, which takes URLs and texts: {url, text}. */
export function beforeAfter() {
  const before = h("img", { class: "pixels" });
  const after = h("img", { class: "pixels after" });
  const line = h("span", { class: "line" });
  const slider = h("input", { type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": "From before to after" });
  const names = h("div", { class: "caption" }, h("span", {}, "before"), h("span", {}, "after"));
  const element = h("div", { class: "compare" }, h("div", { class: "stack" }, before, after, line), slider, names);

  function cut() {
    after.style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    line.style.left = `${slider.value}%`;
  }
  function set(one, other) {
    [[before, one], [after, other]].forEach(([image, { url, text }]) => {
      image.src = url;
      image.alt = text;
    });
  }
  slider.addEventListener("input", cut);
  cut();
  return { element, set };
}

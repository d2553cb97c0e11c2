/** The values that are seen of images of more than 8 bits: a window of them, by its centre and its width. */

import { field, h } from "./dom.js";

/**
 * Returns `element`, two controls, and `level(value)`, the grey of a value in [-1, 1] of a model with these facts.
 *
 * `changed` is called whenever the window is another.
 */
export function valueWindow(model, changed) {
  const [least, greatest] = model.value_range;
  const span = greatest - least;
  const [centre, width] = [least + span / 2, span].map((value) => h("input", { type: "number", step: "any", value }));
  const chosen = (input, usual) => (input.value === "" || !Number.isFinite(Number(input.value)) ? usual : Number(input.value));
  for (const input of [centre, width]) input.addEventListener("input", changed);
  return {
    element: h("div", { class: "fields value-window" }, field("Centre of the window", centre), field("Width of the window", width)),
    level(value) {
      const wide = Math.max(chosen(width, span), span / 65535);
      const low = chosen(centre, least + span / 2) - wide / 2;
      return (255 * (least + ((value + 1) / 2) * span - low)) / wide;
    },
  };
}

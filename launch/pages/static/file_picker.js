/** A place to drop an image file, or to choose one. */

import { h } from "./dom.js";

const KINDS = "image/png,image/jpeg,image/webp";

/** Returns `element` and `chosen`, a file or null; takes files that are dropped, and calls `changed`. */
export function filePicker(title, about, changed) {
  const input = h("input", { type: "file", accept: KINDS, class: "unseen", "aria-label": title });
  const preview = h("img", { alt: "", hidden: true });
  const name = h("span", { class: "small soft" }, about);
  const element = h("label", { class: "drop" }, preview, h("span", {}, h("b", {}, title), h("br"), name), input);
  const picker = { element, chosen: null };
  function take(file) {
    if (!file) return;
    picker.chosen = file;
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(file);
    preview.alt = `${title}: ${file.name}`;
    preview.hidden = false;
    name.textContent = `${file.name}: choose or drop another one here`;
    changed();
  }
  input.addEventListener("change", () => take(input.files[0]));
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  return picker;
}

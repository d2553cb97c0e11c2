/** The gallery: what is to be drawn, and the pictures as they come. */

import { limited, postJson } from "./api.js";
import { mountBetween } from "./between.js";
import { openDetail } from "./detail.js";
import { field, fill, h } from "./dom.js";
import { filePicker } from "./file_picker.js";
import { motionButton, setPicture } from "./motion.js";
import { asDrawn, nounOf, shownBodyOf, textOf } from "./picture.js";

const AT_A_TIME = 12;
const AT_ONCE = 6;
const MOST_SEED = 2 ** 31;

/** Puts the gallery of a model with these facts into `root`. */
export function mountGallery(root, model) {
  const grid = h("div", { class: "grid", role: "list", "aria-label": "Pictures" });
  const state = h("p", { class: "soft small", role: "status" });
  const more = h("button", { type: "button", onclick: () => draw(AT_A_TIME) }, "More");
  const between = mountBetween(model);
  let wanted = null;
  let next = 0;
  let stop = new AbortController();
  let run = limited(AT_ONCE);

  const form = controls(model, (picture) => {
    stop.abort();
    stop = new AbortController();
    run = limited(AT_ONCE);
    wanted = picture;
    next = picture.seed;
    form.clear();
    draw(AT_A_TIME, [...grid.children]);
  });

  /** Draws `count` more pictures; those that they take the place of come back if none can be drawn. */
  async function draw(count, before = null) {
    const { signal } = stop;
    if (before) fill(grid);
    const kind = { ending: model.formats[0], ...(model.frames > 1 ? { noun: model.bit_depth === 8 ? "Clip" : "Volume" } : {}) };
    const pictures = Array.from({ length: count }, (_, number) => asDrawn({ ...wanted, ...kind, seed: next + number }));
    next += count;
    more.disabled = true;
    let done = 0;
    let failed = false;
    state.textContent = `Draws ${count} ${nounOf(model)}s.`;
    await Promise.all(
      pictures.map(async (picture) => {
        const card = emptyCard(picture);
        grid.append(card);
        try {
          const url = await run(() => imageUrl(picture, signal));
          fillCard(card, picture, url);
          state.textContent = `${++done} of ${count} ${nounOf(model)}s drawn.`;
        } catch (error) {
          card.remove();
          if (signal.aborted || failed) return;
          failed = true;
          stop.abort();
          if (before && !done) fill(grid, before);
          form.refuse(error);
          state.textContent = "";
        }
      }),
    );
    more.disabled = false;
    more.hidden = !grid.children.length;
  }

  function emptyCard(picture) {
    const card = h("div", { class: "picture", role: "listitem" });
    card.append(h("div", { class: "frame waiting" }), h("div", { class: "caption" }, h("span", {}, seedText(picture))));
    return card;
  }

  function fillCard(card, picture, url) {
    const image = h("img", { class: "pixels", alt: textOf(picture), width: model.width, height: model.height });
    setPicture(image, url, model.frames > 1);
    const open = h("button", { type: "button", class: "frame", onclick: () => openDetail(model, picture, url, between) }, image);
    fill(card, open, h("div", { class: "caption" }, h("span", {}, seedText(picture)), between.pinButton(picture, () => url)));
  }

  root.append(
    h("h2", { class: "unseen" }, "Gallery"),
    form.element,
    between.element,
    ...(model.frames > 1 ? [h("div", { class: "row" }, motionButton(nounOf(model)))] : []),
    grid,
    h("div", { class: "row" }, more, state),
  );
  form.submit();
}

/** Returns the URL of a blob that holds `picture`. */
export async function imageUrl(picture, signal) {
  const response = await postJson("v1/images", shownBodyOf(picture), signal);
  return URL.createObjectURL(await response.blob());
}

function seedText(picture) {
  return `seed ${picture.seed}`;
}

/** Returns the form: `element`, `submit()`, `refuse(error)`, `clear()`; `ondraw` gets the first picture that is wanted. */
function controls(model, ondraw) {
  const seed = h("input", { type: "number", min: 0, max: MOST_SEED, step: 1, value: 0, required: true });
  const dice = h("button", { type: "button", onclick: () => roll() }, "Surprise me");
  const category = model.classes ? categoryControl(model) : null;
  const prompt = model.targets.caption ? h("input", { type: "text", maxlength: 4096, placeholder: "any text" }) : null;
  const example = model.targets.features ? filePicker("An example", "Pictures are to have its features. Drop it here, or choose a file.", readExample) : null;
  let like = null;
  const variety = h("input", { type: "range", min: 0.3, max: 1.2, step: 0.05, value: 1 });
  const variedness = h("span", { "aria-hidden": "true" }, "1.00");
  const number = (min, step, placeholder) => h("input", { type: "number", min, step, placeholder });
  const flows = Object.values(model.experts).some((kind) => kind === "flow");
  const evaluations = flows ? (model.generation.solver === "heun" ? number(2, 2, model.generation.evaluations) : number(1, 1, model.generation.evaluations)) : null;
  const guidance = flows ? number(null, 0.1, "as trained") : null;
  const labelGuidance = flows && Object.keys(model.targets).length ? number(0, 0.1, model.generation.label_guidance) : null;
  const problem = h("p", { class: "notice bad", role: "alert", hidden: true });
  variety.addEventListener("input", () => (variedness.textContent = Number(variety.value).toFixed(2)));
  const byField = { seed, class: category, prompt, truncation: variety, evaluations, guidance, label_guidance: labelGuidance };

  const element = h(
    "form",
    {
      class: "card",
      "aria-label": "What is to be drawn",
      onsubmit: (event) => {
        event.preventDefault();
        submit();
      },
    },
    h(
      "div",
      { class: "fields" },
      field("First seed", seed),
      category && field("Class", category),
      prompt && field("Prompt", prompt, { class: "field broad" }),
      field(h("span", {}, "Variety ", variedness), variety, { title: "Times all noise: below 1 more usual, and less varied" }),
      h("div", { class: "row" }, h("button", { class: "primary" }, "Draw"), dice),
    ),
    evaluations &&
      h(
        "details",
        {},
        h("summary", {}, "How flow experts generate"),
        h(
          "div",
          { class: "fields" },
          field("Evaluations", evaluations, { title: "Passes of a network for one picture: more are finer, and slower" }),
          field("Guidance", guidance, { title: "How far to lead away from the guides" }),
          labelGuidance && field("Class guidance", labelGuidance, { title: "How far to lead away from what is made without the class or target" }),
        ),
      ),
    example && h("div", { class: "example" }, example.element),
    problem,
  );

  function readExample() {
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      like = { name: example.chosen.name, data: reader.result.slice(reader.result.indexOf(",") + 1) };
      submit();
    });
    reader.readAsDataURL(example.chosen);
  }
  function roll() {
    seed.value = Math.floor(Math.random() * 1e6);
    submit();
  }
  function submit() {
    if (!element.reportValidity()) return;
    const chosen = (input) => (input && input.value !== "" ? Number(input.value) : null);
    ondraw({
      seed: Number(seed.value),
      category: category?.value || null,
      prompt: prompt?.value.trim() || null,
      like,
      truncation: Number(variety.value),
      evaluations: chosen(evaluations),
      guidance: chosen(guidance),
      labelGuidance: chosen(labelGuidance),
    });
  }
  function refuse(error) {
    problem.textContent = error.message;
    problem.hidden = false;
    const wrong = byField[error.field];
    wrong?.setAttribute("aria-invalid", "true");
    wrong?.closest("details")?.setAttribute("open", "");
    wrong?.focus();
  }
  function clear() {
    problem.hidden = true;
    for (const input of Object.values(byField)) input?.removeAttribute("aria-invalid");
  }
  return { element, submit, refuse, clear };
}

/** Returns a control for the class, by its name or its number; "" for any, unless one is needed. */
export function categoryControl(model, isNeeded = false) {
  const names = Array.from({ length: model.classes }, (_, label) => model.class_names[label] ?? String(label));
  return h("select", {}, !isNeeded && h("option", { value: "" }, "any"), names.map((name) => h("option", { value: name }, name)));
}

/** An image of one's own: enlarged, restyled, edited by bands, or taken apart. */

import { postForm } from "./api.js";
import { beforeAfter } from "./before_after.js";
import { commandBox, saveFile } from "./detail.js";
import { choices, debounced, field, fill, h } from "./dom.js";
import { filePicker } from "./file_picker.js";
import { categoryControl } from "./gallery.js";
import { meaningOf, summands } from "./layers.js";
import { curlCommand, quoted } from "./picture.js";

/** Puts the section of uploads to a model with these facts into `root`. */
export function mountUpload(root, model) {
  const file = filePicker("Your image", "A photograph or picture of yours: JPEG, PNG or WebP. Drop it here, or choose a file.", ready);
  const result = h("div", { class: "result", hidden: true });
  const problem = h("p", { class: "notice bad", role: "alert", hidden: true });
  const state = h("p", { class: "soft small", role: "status" });
  const options = h("div", { class: "options" });
  const tasks = tasksOf(model, later);
  let task = tasks[0];
  let stop = new AbortController();

  function ready() {
    if (file.chosen) send();
  }

  function turn(name) {
    task = tasks.find((one) => one.name === name);
    stop.abort();
    state.textContent = "";
    problem.hidden = true;
    result.hidden = true;
    fill(options, h("p", { class: "soft" }, task.about), task.element);
    if (file.chosen && task.isReady()) send();
  }

  function later() {
    if (file.chosen && task.isReady()) sendSoon();
  }
  const sendSoon = debounced(() => send(), 200);

  async function send() {
    if (!task.isReady()) return;
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    const image = file.chosen;
    state.textContent = "The service works on it.";
    problem.hidden = true;
    try {
      const fields = task.fields(image);
      const response = await postForm(task.path, fields, signal);
      const after = new File([await response.blob()], `${task.name}.png`, { type: "image/png" });
      const before = task.before && (await task.before(image, after));
      if (signal.aborted) return;
      showResult(after, before, fields);
      state.textContent = "";
    } catch (error) {
      if (signal.aborted) return;
      problem.textContent = error.message;
      problem.hidden = false;
      result.hidden = true;
      state.textContent = "";
    }
  }

  function showResult(after, before, fields) {
    const command = commandBox(["from this service", curlCommand(task.path, formWords(fields), after.name, model.has_token)]);
    const url = URL.createObjectURL(after);
    let picture;
    if (before) {
      const pair = beforeAfter();
      pair.set({ url: URL.createObjectURL(before), text: task.beforeText }, { url, text: task.afterText });
      picture = pair.element;
    } else picture = h("img", { class: "pixels large", src: url, alt: task.afterText });
    const slider = result.querySelector("input[type=range]");
    fill(
      result,
      picture,
      h("div", { class: "row" }, h("button", { type: "button", class: "primary", onclick: () => saveFile(after) }, "Download")),
      h("details", {}, h("summary", {}, "The command that makes this picture"), h("div", { class: "commands" }, command)),
    );
    const newSlider = result.querySelector("input[type=range]");
    if (slider && newSlider) {
      newSlider.value = slider.value;
      newSlider.dispatchEvent(new Event("input"));
    }
    result.hidden = false;
  }

  root.append(
    h("h2", { class: "unseen" }, "Your image"),
    h(
      "div",
      { class: "halves uneven" },
      h(
        "div",
        { class: "card" },
        file.element,
        h("div", { class: "row" }, choices("What is to be done", tasks.map(({ name, title }) => [name, title]), task.name, turn)),
        options,
        problem,
        state,
      ),
      h("div", { class: "card" }, h("h3", {}, "Result"), h("p", { class: "soft small empty" }, "It appears here. Nothing of your image is stored."), result),
    ),
  );
  turn(task.name);
}

/** Returns what can be done: name, title, about, path, element, isReady(), fields(image), before(image, after). */
function tasksOf(model, changed) {
  const tasks = [];
  const canDraw = model.drawn_bands.length > 0;
  if (canDraw) tasks.push(enlarging(model, changed));
  tasks.push(editing(model, changed), restyling(changed), takingApart(model, changed));
  return tasks;
}

function enlarging(model, changed) {
  const level = h("select", { onchange: changed }, Array.from({ length: model.levels }, (_, i) => h("option", { value: i + 1 }, `${model.size >> (i + 1)} to ${model.size} pixels`)));
  const seed = seedControl(changed);
  const category = model.classes ? withChange(categoryControl(model), changed) : null;
  return {
    name: "enlarged",
    title: "Enlarge",
    about: "The model makes up the detail that is not there. A larger image is reduced first, so that you can compare.",
    path: "v1/super-resolve",
    element: h("div", { class: "fields" }, field("From and to", level), field("Seed of the detail", seed), category && field("Class", category)),
    isReady: () => true,
    fields: (image) => ({ image, level: level.value, seed: seed.value, class: category?.value }),
    before: (image) => enlargedSmoothly(image, model.size >> Number(level.value), model.size),
    beforeText: "The small image, enlarged without a model",
    afterText: "The image, enlarged by the model",
  };
}

function editing(model, changed) {
  const gains = new Map(summands(model).map((band) => [band, gainControl(band, changed)]));
  const flows = Object.values(model.experts);
  const canRedraw = flows.length > 0 && flows.every((kind) => kind === "flow") && !model.parts.includes("companion");
  const redrawn = new Map((canRedraw ? model.drawn_bands : []).map((band) => [band, h("input", { type: "checkbox", onchange: changed })]));
  const seed = seedControl(changed, 1);
  const category = model.classes && canRedraw ? withChange(categoryControl(model), changed) : null;
  const chosen = () => [...redrawn].filter(([, box]) => box.checked).map(([band]) => band);
  const weighed = () => Object.fromEntries([...gains].filter(([, { input }]) => Number(input.value) !== 1).map(([band, { input }]) => [band, Number(input.value)]));
  return {
    name: "edited",
    title: "Edit bands",
    about: "Weigh its bands: 0 takes one away, above 1 makes it stronger." + (canRedraw ? " Bands that are ticked are drawn anew by the model." : ""),
    path: "v1/edit",
    element: h(
      "div",
      {},
      h("div", { class: "bands" }, [...gains].map(([band, { element }]) => h("div", { class: "band plain" }, element, redrawn.has(band) ? h("label", { class: "tick" }, redrawn.get(band), ` redraw ${band}`) : h("span")))),
      canRedraw && h("div", { class: "fields" }, field("Seed of what is redrawn", seed), category && field("Class", category)),
    ),
    isReady: () => chosen().length > 0 || Object.keys(weighed()).length > 0,
    fields: (image) => {
      const factors = weighed();
      return {
        image,
        gains: Object.keys(factors).length ? JSON.stringify(factors) : "",
        resample: chosen().join(","),
        resample_seed: chosen().length ? seed.value : "",
        class: category?.value,
      };
    },
    before: (image) => square(image, model.size),
    beforeText: "Your image, cut to a square of the model's size",
    afterText: "Your image with its bands weighed or drawn anew",
  };
}

function restyling(changed) {
  const style = filePicker("The style", "An image whose colours and textures yours is to take.", changed);
  const strength = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 1, onchange: changed });
  const colours = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 1, onchange: changed });
  const value = (input) => Number(input.value);
  return {
    name: "styled",
    title: "Restyle",
    about: "Edges stay where they are; every band takes the statistics of the other image's.",
    path: "v1/style",
    element: h("div", {}, style.element, h("div", { class: "fields" }, field("Textures", strength), field("Colours", colours))),
    isReady: () => style.chosen !== null,
    fields: (image) => ({ content: image, style: style.chosen, strength: `${value(strength)},LL=${value(colours)}` }),
    before: (image) => image,
    beforeText: "Your image",
    afterText: "Your image in the style of the other",
  };
}

function takingApart(model, changed) {
  const specs = [...new Set([model.transform, "dwt:haar", "dwt:db2", "dct", "fft:shannon", "fft:meyer"])];
  const transform = h("select", { onchange: changed }, specs.map((spec) => h("option", { value: spec }, spec)));
  const levels = h("input", { type: "number", min: 1, max: 10, step: 1, value: 3, onchange: changed });
  return {
    name: "bands",
    title: "Take apart",
    about: "Every band of the image in its place: the coarse picture, and what each finer level adds to it.",
    path: "v1/decompose",
    element: h("div", { class: "fields" }, field("Transform", transform), field("Levels", levels)),
    isReady: () => true,
    fields: (image) => ({ image, transform: transform.value, levels: levels.value }),
    before: null,
    afterText: "A mosaic of the bands of your image",
  };
}

function seedControl(changed, value = 0) {
  return h("input", { type: "number", min: 0, max: 2 ** 31, step: 1, value, onchange: changed });
}

function withChange(control, changed) {
  control.addEventListener("change", changed);
  return control;
}

function gainControl(band, changed) {
  const value = h("span", { class: "number", "aria-hidden": "true" }, "1.00");
  const input = h("input", { type: "range", min: 0, max: 3, step: 0.05, value: 1, "aria-label": `Gain of ${band}, ${meaningOf(band)}` });
  input.addEventListener("input", () => {
    value.textContent = Number(input.value).toFixed(2);
    changed();
  });
  return { input, element: h("div", { class: "about" }, h("span", {}, h("b", {}, band), h("span", { class: "soft small" }, meaningOf(band)), value), input) };
}

/** Returns the words of a curl command that sends these fields. */
function formWords(fields) {
  return Object.entries(fields)
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([name, value]) => ["-F", quoted(value instanceof Blob ? `${name}=@${value.name}` : `${name}=${value}`)]);
}

/** Returns the middle square of an image in `side` x `side` pixels. */
async function square(image, side) {
  return fileOfCanvas(await squareCanvas(image, side));
}

/** Returns the middle square of an image, reduced to `small` pixels and enlarged to `large` as browsers do. */
async function enlargedSmoothly(image, small, large) {
  const reduced = await squareCanvas(image, small);
  const canvas = h("canvas", { width: large, height: large });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(reduced, 0, 0, large, large);
  return fileOfCanvas(canvas);
}

async function squareCanvas(image, side) {
  const bitmap = await createImageBitmap(image);
  const least = Math.min(bitmap.width, bitmap.height);
  const canvas = h("canvas", { width: side, height: side });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - least) / 2, (bitmap.height - least) / 2, least, least, 0, 0, side, side);
  return canvas;
}

function fileOfCanvas(canvas) {
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(blob), "image/png"));
}

/** An image of one's own: enlarged, restyled, edited by bands, or taken apart. */

import { postForm } from "./api.js";
import { beforeAfter } from "./before_after.js";
import { commandBox, saveFile } from "./detail.js";
import { choices, debounced, field, fill, h } from "./dom.js";
import { filePicker } from "./file_picker.js";
import { categoryControl } from "./gallery.js";
import { meaningOf, summands } from "./layers.js";
import { curlCommand, nounOf, quoted } from "./picture.js";

/** Pixels of images that are restyled: of more it takes long. */
const STYLED_PIXELS = 360_000;

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
    const begun = Date.now();
    const tick = () => {
      state.textContent = `The service works on it: ${Math.round((Date.now() - begun) / 1000)} s.`;
    };
    tick();
    const timer = setInterval(tick, 1000);
    problem.hidden = true;
    try {
      const image = await reduced(file.chosen, Math.min(task.most, model.limits.pixels));
      const fields = await task.fields(image);
      const response = await postForm(task.path, fields, signal);
      const after = new File([await response.blob()], `${task.name}.png`, { type: "image/png" });
      const before = task.before && (await task.before(image, after));
      if (signal.aborted) return;
      clearInterval(timer);
      showResult(after, before, fields);
      state.textContent = image === file.chosen ? "" : "Your image was reduced before it was sent.";
    } catch (error) {
      if (signal.aborted) return;
      problem.textContent = error.message;
      problem.hidden = false;
      result.hidden = true;
      state.textContent = "";
    } finally {
      clearInterval(timer);
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
    model.takes_images ? "" : h("p", { class: "notice" }, `This model makes ${madeOf(model)}, and an image is none of them: there is nothing that it could enlarge or edit. Bands of what it draws are weighed and drawn anew in the gallery. What is left here takes no model.`),
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
  if (canDraw && model.takes_images) tasks.push(enlarging(model, changed));
  if (model.takes_images) tasks.push(editing(model, changed));
  tasks.push(restyling(changed), takingApart(model, changed));
  return tasks;
}

/** Returns what the images of a model are, in words. */
function madeOf(model) {
  const channels = model.channels === 1 ? "one channel" : `${model.channels} channels`;
  const bits = model.bit_depth === 32 ? "floating-point numbers" : `${model.bit_depth} bits`;
  return `${model.frames > 1 ? `${nounOf(model)}s of ${model.frames} ${model.bit_depth === 8 ? "frames" : "slices"}` : "images"} with ${channels} of ${bits}`;
}

function enlarging(model, changed) {
  const level = h("select", { onchange: changed }, Array.from({ length: model.levels }, (_, i) => h("option", { value: i + 1 }, `${halved(model, i + 1).join(" × ")} to ${model.width} × ${model.height} pixels`)));
  const seed = seedControl(changed);
  const category = model.classes ? withChange(categoryControl(model), changed) : null;
  return {
    name: "enlarged",
    title: "Enlarge",
    about: `The model makes up the detail that is not there. A larger image is cut to ${model.width} × ${model.height} pixels and reduced first, so that you can compare.`,
    most: Infinity,
    path: "v1/super-resolve",
    element: h("div", { class: "fields" }, field("From and to", level), field("Seed of the detail", seed), category && field("Class", category)),
    isReady: () => true,
    fields: (image) => ({ image, level: level.value, seed: seed.value, class: category?.value }),
    before: (image) => enlargedSmoothly(image, halved(model, Number(level.value)), [model.width, model.height]),
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
  const hasClassesAlone = Object.keys(model.targets).join() === "class"; // then an image has to be of one
  const category = model.classes && canRedraw ? withChange(categoryControl(model, hasClassesAlone), changed) : null;
  const chosen = () => [...redrawn].filter(([, box]) => box.checked).map(([band]) => band);
  const weighed = () => Object.fromEntries([...gains].filter(([, { input }]) => Number(input.value) !== 1).map(([band, { input }]) => [band, Number(input.value)]));
  return {
    name: "edited",
    title: "Edit bands",
    most: Infinity,
    about: `Weigh the bands of your image, cut to ${model.width} × ${model.height} pixels: 0 takes one away, above 1 makes it stronger.` + (canRedraw ? " Bands that are ticked are drawn anew by the model." : ""),
    path: "v1/edit",
    element: h(
      "div",
      {},
      h("div", { class: "bands" }, [...gains].map(([band, { element }]) => h("div", { class: "band plain" }, element, redrawn.has(band) ? h("label", { class: "tick" }, redrawn.get(band), " redraw", h("span", { class: "unseen" }, ` ${band}`)) : h("span")))),
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
    before: (image) => cut(image, [model.width, model.height]),
    beforeText: "Your image, cut to the model's size",
    afterText: "Your image with its bands weighed or drawn anew",
  };
}

function restyling(changed) {
  const style = filePicker("The style", "An image whose colours and textures yours is to take.", changed);
  const [strength, strengthText] = shareControl(changed);
  const [colours, coloursText] = shareControl(changed);
  const value = (input) => Number(input.value);
  return {
    name: "styled",
    title: "Restyle",
    about: "Edges stay where they are; every band takes the statistics of the other image's. Large images are reduced first.",
    most: STYLED_PIXELS,
    path: "v1/style",
    element: h("div", {}, style.element, h("div", { class: "fields" }, field(h("span", {}, "Textures ", strengthText), strength), field(h("span", {}, "Colours ", coloursText), colours))),
    isReady: () => style.chosen !== null,
    fields: async (image) => ({
      content: image,
      style: await reduced(style.chosen, STYLED_PIXELS),
      strength: `${value(strength)},LL=${value(colours)}`,
    }),
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
    most: Infinity,
    path: "v1/decompose",
    element: h("div", { class: "fields" }, field("Transform", transform), field("Levels", levels)),
    isReady: () => true,
    fields: (image) => ({ image, transform: transform.value, levels: levels.value }),
    before: null,
    afterText: "A mosaic of the bands of your image",
  };
}

/** Returns a slider from 0 to 1, and a text that says where it is. */
function shareControl(changed) {
  const text = h("span", { "aria-hidden": "true" }, "1.00");
  const input = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 1, onchange: changed });
  input.addEventListener("input", () => (text.textContent = Number(input.value).toFixed(2)));
  return [input, text];
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

/** Returns width and height of the low band of `level`, about: what an image is reduced to before it is enlarged. */
function halved(model, level) {
  return [model.width, model.height].map((side) => Math.ceil(side / 2 ** level));
}

/** Returns the middle of an image, in the shape and size of [width, height]. */
async function cut(image, size) {
  return fileOfCanvas(await cutCanvas(image, size));
}

/** Returns the middle of an image, reduced to the size `small` and enlarged to `large` as browsers do. */
async function enlargedSmoothly(image, small, large) {
  const reduced = await cutCanvas(image, small);
  const canvas = h("canvas", { width: large[0], height: large[1] });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(reduced, 0, 0, ...large);
  return fileOfCanvas(canvas);
}

/** Returns an image file of at most `most` pixels: the file itself, or a smaller one of the same shape. */
async function reduced(file, most) {
  const bitmap = await decoded(file);
  if (bitmap === null || bitmap.width * bitmap.height <= most) return file;
  const scale = Math.sqrt(most / (bitmap.width * bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * scale)));
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return new File([await fileOfCanvas(canvas)], file.name.replace(/\.\w+$/, "") + ".png", { type: "image/png" });
}

/** Returns the pixels of a file; null where the browser cannot read it, and the service is to say what is wrong. */
async function decoded(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    return null;
  }
}

async function cutCanvas(image, [width, height]) {
  const bitmap = await createImageBitmap(image);
  const scale = Math.min(bitmap.width / width, bitmap.height / height);
  const [across, down] = [width * scale, height * scale];
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - across) / 2, (bitmap.height - down) / 2, across, down, 0, 0, width, height);
  return canvas;
}

function fileOfCanvas(canvas) {
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(blob), "image/png"));
}

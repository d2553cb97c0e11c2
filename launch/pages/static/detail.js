/** One picture, large: its bands to weigh and to draw anew, its mosaic, its file and the commands that make it. */

import { postForm, postJson } from "./api.js";
import { choices, debounced, fill, h } from "./dom.js";
import { drawLayer, drawSum, levelOf, meaningOf, motionOf, parseLayers, planesOf, summands, timeOf } from "./layers.js";
import { FRAME_MS, isPlaying, motionButton, onMotion, setPicture, setPlaying } from "./motion.js";
import { asDrawn, bodyOf, commandsOf, fileOf, nounOf, textOf } from "./picture.js";
import { valueWindow } from "./value_window.js";

const MOST_GAIN = 3;

/**
 * Opens a dialog about a picture.
 *
 * `source` is the URL of its image, shown until its layers are there; `between` takes what is pinned.
 */
export function openDetail(model, original, source, between) {
  const picture = { ...original, gains: { ...original.gains }, resample: [...(original.resample ?? [])] };
  const stop = new AbortController();
  let layers = null;
  let view = "picture";
  let frame = 0;
  const noun = nounOf(model);
  const isClip = model.frames > 1;
  const times = Object.keys(model.temporal_bands);
  const plane = noun === "volume" ? "Slice" : "Frame";

  const canvas = h("canvas", { class: "pixels large", role: "img", width: model.width, height: model.height });
  const first = h("img", { class: "pixels large", alt: textOf(picture) });
  setPicture(first, source, isClip);
  const mosaic = h("img", { class: "pixels large", alt: "", hidden: true });
  const stage = h("div", { class: "stage" }, first, canvas, mosaic);
  const problem = h("p", { class: "notice bad", role: "alert", hidden: true });
  const state = h("p", { class: "soft small", role: "status" });
  const commands = h("div", { class: "commands" });
  const rows = new Map(summands(model).map((band) => [band, bandRow(band)]));
  const wholes = new Map(times.map((time) => [time, wholeRow(time)]));
  const seen = model.bit_depth === 8 ? null : valueWindow(model, () => paint());
  const slider = h("input", { type: "range", min: 1, max: model.frames, step: 1, value: 1, "aria-label": plane });
  const place = h("span", { class: "number", "aria-hidden": "true" }, "1");
  const moves = isClip && h("div", { class: "row frames" }, motionButton(noun), slider, place);
  slider.addEventListener("input", () => {
    setPlaying(false);
    frame = Number(slider.value) - 1;
    place.textContent = slider.value;
    paint();
  });
  const undo = h("button", { type: "button", class: "quiet", onclick: reset }, "As it was drawn");
  const download = h("button", { type: "button", class: "primary", onclick: save }, "Download");
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "✕");
  const pin = between.pinButton(original, () => source);
  canvas.hidden = true;

  const dialog = h(
    "dialog",
    { class: "detail", "aria-label": textOf(original), onclose: leave, onclick: (event) => event.target === dialog && dialog.close() },
    h(
      "div",
      { class: "sheet" },
      h("header", {}, h("h2", {}, textOf(original)), close),
      h(
        "div",
        { class: "halves" },
        h(
          "div",
          {},
          stage,
          h(
            "div",
            { class: "row" },
            model.takes_images && choices("What is shown", [["picture", "Picture"], ["bands", "Its bands"]], view, show),
            download,
            pin,
          ),
          moves,
          seen?.element,
          problem,
          state,
        ),
        h(
          "div",
          {},
          h("div", { class: "row spread" }, h("h3", {}, "Bands"), undo),
          h("div", { class: "bands" }, levelsOf(rows, wholes, times)),
        ),
      ),
      h("details", { class: "made" }, h("summary", {}, `The command that makes this ${noun}`), commands),
    ),
  );

  function bandRow(band) {
    const thumb = h("canvas", { class: "pixels thumb", role: "img", "aria-label": `What ${band} adds`, width: 1, height: 1 });
    return { thumb, ...rowOf(band, meaningOf(band), thumb, model.drawn_bands.includes(band)) };
  }

  /** Returns the row of all bands of a temporal band together. */
  function wholeRow(time) {
    const isDrawn = model.drawn_bands.some((band) => timeOf(band) === time);
    return rowOf(time, `all of its bands, ${motionOf(time, times)}`, h("span"), isDrawn);
  }

  function rowOf(band, meaning, thumb, isDrawn) {
    const gain = h("input", { type: "range", min: 0, max: MOST_GAIN, step: 0.05, value: 1, "aria-label": `Gain of ${band}, ${meaning}` });
    const value = h("span", { class: "number", "aria-hidden": "true" }, "1.00");
    const redraw = h(
      "button",
      { type: "button", class: "quiet", "aria-label": `Draw ${band} anew`, title: "Draw this band anew. Bands that were drawn anew before change with it, all others stay", onclick: () => drawAnew(band) },
      "Redraw",
    );
    gain.addEventListener("input", () => weigh(band, Number(gain.value)));
    const element = h(
      "div",
      { class: "band" },
      thumb,
      h("div", { class: "about" }, h("span", {}, h("b", {}, band), h("span", { class: "soft small" }, meaning)), gain),
      value,
      isDrawn ? redraw : h("span"),
    );
    return { element, gain, value, redraw };
  }

  function allRows() {
    return [...rows.values(), ...wholes.values()];
  }

  function weigh(band, gain) {
    picture.gains[band] = gain;
    (rows.get(band) ?? wholes.get(band)).value.textContent = gain.toFixed(2);
    paint();
    changed();
  }

  /** Draws `band` anew; where it was already, it and the others that were are drawn from the next seed. */
  function drawAnew(band) {
    if (picture.resample.includes(band)) picture.resampleSeed += 1;
    else picture.resample.push(band);
    load();
  }

  function reset() {
    picture.gains = {};
    for (const { gain, value } of allRows()) {
      gain.value = 1;
      value.textContent = "1.00";
    }
    const redrawn = picture.resample.length > 0;
    Object.assign(picture, asDrawn(picture));
    if (redrawn) load();
    else paint();
    changed();
  }

  /** Asks for the layers of the picture as it is drawn now; gains act on them here. */
  async function load() {
    state.textContent = `Draws the ${noun}'s bands.`;
    for (const { redraw } of allRows()) redraw.disabled = true;
    try {
      const body = { ...bodyOf({ ...picture, gains: {} }), format: "layers" };
      const response = await postJson("v1/images", body, stop.signal);
      layers = parseLayers(await response.arrayBuffer());
      problem.hidden = true;
      paint();
      changed();
      state.textContent = picture.resample.length ? `${picture.resample.join(", ")} drawn anew.` : "";
    } catch (error) {
      if (!stop.signal.aborted) fault(error);
    }
    for (const { redraw } of allRows()) redraw.disabled = false;
  }

  function paint() {
    undo.disabled = !picture.resample.length && !Object.values(picture.gains).some((gain) => gain !== 1);
    pin.disabled = !undo.disabled;
    pin.title = pin.disabled ? "Pins are of pictures as they were drawn" : "";
    if (!layers) return;
    const planes = planesOf(model, frame);
    drawSum(canvas, layers, picture.gains, planes, seen?.level);
    for (const [band, { thumb }] of rows) drawLayer(thumb, band, layers[band], planes);
    canvas.setAttribute("aria-label", textOf(picture));
    first.hidden = true;
    canvas.hidden = view !== "picture";
  }

  function show(name) {
    view = name;
    first.hidden = name !== "picture" || layers !== null;
    canvas.hidden = name !== "picture" || layers === null;
    mosaic.hidden = name !== "bands";
    if (name === "bands") loadMosaic();
  }

  const changed = debounced(() => {
    showCommands();
    if (view === "bands") loadMosaic();
  }, 250);

  async function loadMosaic() {
    try {
      const image = await imageFile();
      const fields = { image, transform: model.transform, levels: model.levels, packets: model.packets };
      const blob = await (await postForm("v1/decompose", fields, stop.signal)).blob();
      replaceUrl(mosaic, URL.createObjectURL(blob));
      mosaic.alt = `The bands of the picture: ${summands(model).join(", ")}`;
    } catch (error) {
      if (!stop.signal.aborted) fault(error);
    }
  }

  async function imageFile() {
    const response = await postJson("v1/images", bodyOf(picture), stop.signal);
    const blob = await response.blob();
    return new File([blob], fileOf(picture), { type: blob.type });
  }

  async function save() {
    try {
      saveFile(await imageFile());
    } catch (error) {
      fault(error);
    }
  }

  function showCommands() {
    fill(commands, commandsOf(picture, model.has_token).map(commandBox));
  }

  function fault(error) {
    problem.textContent = error.message;
    problem.hidden = false;
    state.textContent = "";
  }

  /** Ends everything. The entry that was added to the history stays for the next picture: going back is not at once. */
  function leave() {
    stop.abort();
    clearInterval(timer);
    forget();
    window.removeEventListener("popstate", back);
    if (history.state?.picture === original.seed) history.replaceState({ spare: true }, "");
    replaceUrl(mosaic, "");
    dialog.remove();
  }

  /** Closes the dialog where the browser goes back. */
  function back() {
    dialog.close();
  }

  /** Shows the next frame, where clips play. */
  function advance() {
    if (!isPlaying() || layers === null) return;
    frame = (frame + 1) % model.frames;
    slider.value = frame + 1;
    place.textContent = frame + 1;
    paint();
  }

  const timer = isClip ? setInterval(advance, FRAME_MS) : 0;
  const forget = onMotion(() => paint());
  document.body.append(dialog);
  dialog.showModal();
  if (history.state?.spare) history.replaceState({ picture: original.seed }, "");
  else history.pushState({ picture: original.seed }, "");
  window.addEventListener("popstate", back);
  paint();
  showCommands();
  load();
}

/** Returns the rows of bands in groups, one for each level; of clips those of each temporal band, which `wholes` begin. */
function levelsOf(rows, wholes, times) {
  const groups = new Map();
  for (const [band, row] of rows) {
    const [level, time] = [levelOf(band), timeOf(band)];
    const name = `${time && `${time}, ${motionOf(time, times)} · `}Level ${level}${level === 1 ? ", the finest" : ""}`;
    if (!groups.has(name)) {
      const isFirst = time && ![...groups.values()].some((group) => group.time === time);
      groups.set(name, { time, label: time ? `${time}, level ${level}` : `Level ${level}`, elements: isFirst ? [wholes.get(time).element] : [] });
    }
    groups.get(name).elements.push(row.element);
  }
  return [...groups].map(([name, { label, elements }]) => h("div", { role: "group", "aria-label": label }, h("p", { class: "legend" }, name), elements));
}

/** Returns a box with a command, and a button that copies it. */
export function commandBox([title, text]) {
  const copy = h("button", { type: "button", class: "quiet", "aria-label": `Copy the command: ${title}`, onclick: copied }, "Copy");
  async function copied() {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Select the text and copy it";
    }
  }
  return h("div", { class: "command" }, h("div", { class: "row spread" }, h("span", { class: "soft small" }, title), copy), h("pre", { tabindex: 0 }, text));
}

/** Has the browser save a file. */
export function saveFile(file) {
  const url = URL.createObjectURL(file);
  h("a", { href: url, download: file.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Puts `url` in place of the blob that `image` shows. */
export function replaceUrl(image, url) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  if (url) image.src = url;
  else image.removeAttribute("src");
}

/** What each band adds to an image, and the image that they add up to under gains: at once, without the service. */

/** Returns the layers of an answer of the format "layers": by band, {width, height, channels, values}. */
export function parseLayers(buffer) {
  const view = new DataView(buffer);
  const headerBytes = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, headerBytes)));
  const layers = {};
  for (const [band, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (band === "__metadata__") continue;
    if (dtype !== "F16") throw new Error(`the layer ${band} is ${dtype}, and F16 is read`);
    const [channels, height, width] = shape;
    const halves = new Uint16Array(buffer.slice(8 + headerBytes + offsets[0], 8 + headerBytes + offsets[1]));
    layers[band] = { channels, height, width, values: Float32Array.from(halves, half) };
  }
  return layers;
}

/** Returns the number of 16 bits of IEEE 754. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Grey of a value in [-1, 1] where nothing else is asked for. */
export function usualLevel(value) {
  return (value + 1) * 127.5;
}

/** Returns which planes of a layer are seen of `frame`: those of the channels of `model` that people are shown. */
export function planesOf(model, frame) {
  return model.shown_channels.map((channel) => frame * model.channels + channel);
}

/**
 * Draws the sum of `layers` times their gains on `canvas`; a band without one has 1, and of clips a temporal band has one
 * for all of its bands. `planes` are those of one frame; `level` is the grey of a value.
 */
export function drawSum(canvas, layers, gains, planes, level = usualLevel) {
  const all = Object.entries(layers);
  const { height, width } = all[0][1];
  const plane = height * width;
  const sum = new Float32Array(planes.length * plane);
  for (const [band, { values }] of all) {
    const gain = (gains[band] ?? 1) * (gains[timeOf(band)] ?? 1);
    if (gain === 0) continue;
    planes.forEach((number, place) => {
      const [from, to] = [number * plane, place * plane];
      for (let i = 0; i < plane; i++) sum[to + i] += gain * values[from + i];
    });
  }
  draw(canvas, sum, planes.map((_, place) => place), height, width, level);
}

/** Draws `planes` of one layer on `canvas`: a low band as it is, others around grey and as strong as they can be. */
export function drawLayer(canvas, band, layer, planes) {
  const { height, width, values } = layer;
  if (isLow(band)) return draw(canvas, values, planes, height, width, usualLevel);
  if (layer.scale === undefined) {
    let energy = 0;
    for (const value of values) energy += value * value;
    layer.scale = 127.5 / Math.max(3 * Math.sqrt(energy / values.length), 1e-3);
  }
  draw(canvas, values, planes, height, width, (value) => 127.5 + value * layer.scale);
}

function draw(canvas, values, planes, height, width, level) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const plane = width * height;
  for (let i = 0; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = values[planes[planes.length === 1 ? 0 : channel] * plane + i];
      picture.data[4 * i + channel] = Math.round(level(value)); // is clipped to 0 .. 255
    }
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

/** Returns the bands of which an image is the sum, coarse first: LL of the coarsest level and all high ones. */
export function summands(model) {
  return model.bands.filter((band) => !orientationOf(band).startsWith("LL") || levelOf(band) === model.levels);
}

/** Returns the temporal band of a band of clips, "tL" or "tH1"; "" of a band of images. */
export function timeOf(band) {
  return band.includes(".") ? band.split(".")[0] : "";
}

function orientationOf(band) {
  return band.split(".").pop();
}

/** Returns whether a band is a picture, and no changes of one. */
function isLow(band) {
  return orientationOf(band).startsWith("LL") && ["", "tL"].includes(timeOf(band));
}

/** Returns in words what a temporal band holds, of a model of `times` from slow to fast. */
export function motionOf(time, times) {
  if (time === "tL") return "averages";
  if (times.length === 2) return "changes";
  return time === "tH1" ? "changes: fast" : time === times[1] ? "changes: slow" : "changes";
}

/** Returns the level of a band, 1 the finest. */
export function levelOf(band) {
  return Number(band.match(/\d+$/)[0]);
}

/** Returns in words what a band holds. */
export function meaningOf(band) {
  const name = orientationOf(band).replace(/\d+$/, "");
  if (/^LL$/.test(name)) return "the coarse picture";
  if (/^R[A-H]$/.test(name)) return "a ring of frequencies";
  return { HL: "vertical edges", LH: "horizontal edges", HH: "diagonals, corners" }[name.slice(0, 2)] ?? "";
}

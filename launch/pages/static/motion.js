/** Clips that play, and are still where people want that: all of a page together. */

import { h } from "./dom.js";

export const FRAME_MS = 125;
const changed = new Set();
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Returns whether clips play. */
export function isPlaying() {
  return playing;
}

/** Has all clips play, or be still. */
export function setPlaying(plays) {
  if (plays === playing) return;
  playing = plays;
  for (const image of document.querySelectorAll("img[data-clip]")) show(image);
  for (const tell of changed) tell();
}

/** Calls `tell` whenever clips begin to play or stop; returns what ends that. */
export function onMotion(tell) {
  changed.add(tell);
  return () => changed.delete(tell);
}

/** Returns a button that stops all clips and has them play again; `noun` is what they are called. */
export function motionButton(noun) {
  const button = h("button", { type: "button", class: "motion", onclick: () => setPlaying(!playing) });
  const mark = () => (button.textContent = playing ? `Pause the ${noun}s` : `Play the ${noun}s`);
  onMotion(mark);
  mark();
  return button;
}

/** Has `image` show the picture at `url`; a clip plays, or shows one of its frames. */
export function setPicture(image, url, isClip) {
  if (!isClip) {
    image.src = url;
    return;
  }
  image.dataset.clip = url;
  show(image);
}

async function show(image) {
  const url = image.dataset.clip;
  const source = playing ? url : await stillOf(url);
  if (image.dataset.clip !== url || source !== (playing ? url : source)) return;
  if (image.dataset.still) URL.revokeObjectURL(image.dataset.still);
  if (source === url) delete image.dataset.still;
  else image.dataset.still = source;
  image.src = source;
}

/** Returns the URL of a picture of the first frame of a clip. */
async function stillOf(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = h("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return URL.createObjectURL(blob);
}

/**
 * Pictures as what they are asked for by: plain objects, from which the request, the command and the name follow.
 *
 * A picture is {seed, category, prompt, like {name, data}, truncation, evaluations, guidance, labelGuidance, gains, resample,
 * resampleSeed}, or has `way` {first, second, share, secondCategory} or `mix` {coarse, fine, at} in place of a seed.
 * `ending` is that of its file, and `noun` what it is called, where these are not "png" and "Image".
 */

/** Returns `picture` without gains and redrawn bands; bands would be drawn anew from the next seed: of its own they are the same. */
export function asDrawn(picture) {
  return { ...picture, gains: {}, resample: [], resampleSeed: picture.seed + 1 };
}

/** Returns what pictures of a model are called, with a small letter. */
export function nounOf(model) {
  return model.frames === 1 ? "picture" : model.bit_depth === 8 ? "clip" : "volume";
}

/** Returns the body of the request for a picture that a browser shows: of some models the file is none. */
export function shownBodyOf(picture) {
  return { ...bodyOf(picture), ...(picture.ending === "npy" ? { format: "preview" } : {}) };
}

/** Stands for the example's bytes until the command is whole. */
const EXAMPLE = "EXAMPLE";

/** Returns the body of the request for `picture`, without what is as the service has it anyway. */
export function bodyOf(picture) {
  const gains = Object.fromEntries(Object.entries(picture.gains ?? {}).filter(([, gain]) => gain !== 1));
  const parts = {
    seed: picture.way || picture.mix ? null : picture.seed,
    interpolate: picture.way && {
      first: picture.way.first,
      second: picture.way.second,
      share: picture.way.share,
      ...(picture.way.secondCategory ? { second_class: picture.way.secondCategory } : {}),
    },
    mix: picture.mix,
    class: picture.category,
    prompt: picture.prompt,
    like: picture.like?.data,
    truncation: picture.truncation === 1 ? null : picture.truncation,
    evaluations: picture.evaluations,
    guidance: picture.guidance,
    label_guidance: picture.labelGuidance,
    gains: Object.keys(gains).length ? gains : null,
    resample: picture.resample?.length ? picture.resample : null,
    resample_seed: picture.resample?.length ? picture.resampleSeed : null,
  };
  return Object.fromEntries(Object.entries(parts).filter(([, value]) => value !== null && value !== undefined && value !== ""));
}

/** Returns what a screen reader says of `picture`. */
export function textOf(picture) {
  const { way, mix } = picture;
  const noun = picture.noun ?? "Image";
  let text = `${noun} of seed ${picture.seed}`;
  if (way) text = `${noun} ${Math.round(way.share * 100)} percent of the way from seed ${way.first} to seed ${way.second}`;
  if (mix) text = `${noun} with the picture of seed ${mix.coarse} and the ${mix.at === "time" ? "motion" : "detail"} of seed ${mix.fine}`;
  if (picture.category) text += `, class ${picture.category}`;
  if (picture.prompt) text += `, “${picture.prompt}”`;
  if (picture.like) text += `, like ${picture.like.name}`;
  if (picture.resample?.length) text += `, ${picture.resample.join(", ")} drawn anew`;
  return text;
}

/** Returns the name of the file of `picture`. */
export function fileOf(picture) {
  const { way, mix, ending = "png" } = picture;
  if (way) return `seed-${way.first}-to-${way.second}-at-${way.share.toFixed(3)}.${ending}`;
  if (mix) return `seed-${mix.coarse}-${mix.at === "time" ? "motion" : "detail"}-of-${mix.fine}.${ending}`;
  return `seed-${picture.seed}${picture.category ? `-${safe(picture.category)}` : ""}.${ending}`;
}

/** Returns the commands that make the same picture, as [what they need, text]. */
export function commandsOf(picture, hasToken) {
  const local = localCommand(picture);
  const body = quoted(JSON.stringify({ ...bodyOf(picture), ...(picture.like ? { like: EXAMPLE } : {}) }));
  const words = ["--json", body.replace(EXAMPLE, `'"$(base64 -w0 ${quoted(picture.like?.name ?? "")})"'`)];
  return [
    ["from this service", curlCommand("v1/images", words, fileOf(picture), hasToken)],
    ...(local ? [["from the model itself", local]] : []),
  ];
}

/** Returns the command that sends a request to the service. */
export function curlCommand(path, what, file, hasToken) {
  const token = hasToken ? ` -H "Authorization: Bearer $FREQGAN_TOKEN"` : "";
  return `curl ${quoted(new URL(path, location.href).href)}${token} ${what.join(" ")} -o ${quoted(file)}`;
}

/** Returns the command that makes `picture` without a service; null where there is none. */
function localCommand(picture) {
  const gains = Object.entries(bodyOf(picture).gains ?? {});
  const edited = gains.length > 0 || picture.resample?.length > 0;
  const { way, mix } = picture;
  if (edited && (way || mix || picture.prompt || picture.like || picture.truncation !== 1)) return null;
  if (way && (way.secondCategory || (way.share * 16) % 1)) return null;
  const options = [
    ...(way ? ["--interpolate", way.first, way.second, "--frames", 17] : []),
    ...(mix ? ["--mix", mix.coarse, mix.fine, "--at", mix.at, "--count", 1] : []),
    ...(way || mix ? [] : ["--seed", picture.seed, "--count", 1]),
    ...option("--class", picture.category),
    ...option("--prompt", picture.prompt),
    ...option("--like", picture.like?.name),
    ...option("--truncation", picture.truncation === 1 ? null : picture.truncation),
    ...option("--evaluations", picture.evaluations),
    ...option("--guidance", picture.guidance),
    ...option("--label-guidance", picture.labelGuidance),
    ...(picture.resample?.length ? ["--resample", picture.resample.join(","), "--resample-seed", picture.resampleSeed] : []),
    ...gains.flatMap(([band, gain]) => ["--gain", `${band}=${gain}`]),
  ];
  const frame = way ? `  # ${String(Math.round(way.share * 16)).padStart(5, "0")}.${picture.ending ?? "png"}` : "";
  return `freqgan ${edited ? "edit" : "generate"} MODEL ${options.join(" ")} --out pictures${frame}`;
}

function option(name, value) {
  return value === null || value === undefined || value === "" ? [] : [name, quoted(String(value))];
}

/** Returns `text` as a shell reads it as one word. */
export function quoted(text) {
  return /^[\w./:@=+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function safe(text) {
  return text.replaceAll(/[^\w-]+/g, "-");
}

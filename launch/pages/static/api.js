/** Requests to the service that the page came from. */

const TOKEN = "freqgan-token";
const MOST_TRIES = 6;

/** What the service says is wrong, and the field of the request, if it is one. */
export class ServiceError extends Error {
  constructor(message, status, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

/** Returns whether requests lack a token that the service wants; asks a path that needs none. */
export async function lacksToken() {
  if (sessionStorage.getItem(TOKEN)) return false;
  return (await (await answered("healthz", {})).json()).token === true;
}

/** Returns whether requests carry a token. */
export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** Keeps the token of all further requests until the tab is closed; "" forgets it. */
export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

/** Returns what a path answers, as an object of JSON. */
export async function getJson(path, signal) {
  return (await answered(path, { signal })).json();
}

/** Returns the answer to a request, whose body is a blob. */
export async function getBlob(path, signal) {
  return (await answered(path, { signal })).blob();
}

/** Returns the response to a body of JSON. */
export function postJson(path, body, signal) {
  return answered(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** Returns the response to a form: texts and files by name. Fields without a value are left out. */
export function postForm(path, fields, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === undefined || value === "") continue;
    if (value instanceof Blob) form.append(name, value, value.name ?? `${name}.png`);
    else form.append(name, String(value));
  }
  return answered(path, { method: "POST", body: form, signal });
}

/**
 * Returns the response to a request; where the service is busy, it is asked again when it says.
 *
 * Listeners of the window's "version" are told which version of the model has answered.
 */
async function answered(path, options) {
  for (let attempt = 1; ; attempt++) {
    const response = await sent(path, options);
    const version = response.headers.get("X-Freqgan-Version");
    if (version) window.dispatchEvent(new CustomEvent("version", { detail: version }));
    if (response.ok) return response;
    const seconds = Number(response.headers.get("Retry-After"));
    if (!seconds || attempt >= MOST_TRIES) throw await errorOf(response);
    await pause(seconds * 1000, options.signal);
  }
}

async function sent(path, options) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not answer: see whether it still runs, and try again.", 0);
  }
}

async function errorOf(response) {
  try {
    const { error } = await response.json();
    return new ServiceError(sentence(error.message), response.status, error.field);
  } catch {
    return new ServiceError(`The service answers with status ${response.status}: try again.`, response.status);
  }
}

/** Returns `text` with a capital letter and a full stop. */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** Returns a function that runs at most `most` of the tasks it is given at a time, the others in their order after them. */
export function limited(most) {
  const waiting = [];
  let active = 0;
  function next() {
    if (active >= most || !waiting.length) return;
    active++;
    const { task, resolve, reject } = waiting.shift();
    task().then(resolve, reject).finally(() => {
      active--;
      next();
    });
  }
  return (task) =>
    new Promise((resolve, reject) => {
      waiting.push({ task, resolve, reject });
      next();
    });
}

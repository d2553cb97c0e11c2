/** Elements of the page. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Returns an element of HTML: h("button", {class: "primary", onclick: draw}, "Draw").
 *
 * Attributes that are functions are listeners; true is an attribute without a value; false, null and undefined are left out.
 */
export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Returns an element of SVG, as `h` does. */
export function s(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Puts `children` in place of what `parent` holds. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return parent;
}

let controls = 0;

/** Returns a control with its name above it. */
export function field(name, control, attributes = {}) {
  control.id ||= `control-${++controls}`;
  return h("div", { class: "field", ...attributes }, h("label", { for: control.id }, name), control);
}

/**
 * Returns a group of buttons of which one is pressed.
 *
 * `options` are [value, text]; `onchange` gets the value of the one that is pressed.
 */
export function choices(name, options, value, onchange) {
  const buttons = options.map(([option, text]) =>
    h("button", { type: "button", "aria-pressed": String(option === value), onclick: () => press(option) }, text),
  );
  function press(option) {
    options.forEach(([other], number) => buttons[number].setAttribute("aria-pressed", String(other === option)));
    onchange(option);
  }
  return h("div", { class: "choices", role: "group", "aria-label": name }, buttons);
}

/** Returns a function that calls `run` once no further call has come for `wait` milliseconds. */
export function debounced(run, wait) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), wait);
  };
}

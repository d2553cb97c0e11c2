/** The form that asks for the token of a service. */

import { setToken } from "./api.js";
import { field, fill, h } from "./dom.js";

/** Shows the form in `content`, with what is wrong, if anything is; the token is kept, and `goOn` called. */
export function askToken(content, problem, goOn) {
  const input = h("input", { type: "password", autocomplete: "off", required: true, id: "token" });
  const submit = (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    goOn();
  };
  fill(
    content,
    h(
      "form",
      { class: "card token", onsubmit: submit },
      h("h2", {}, "This service wants a token"),
      h("p", { class: "soft" }, "It is in the file, or the variable FREQGAN_TOKEN, that the service was started with. This tab alone remembers it."),
      problem && h("p", { class: "notice bad", role: "alert" }, problem),
      field("Token", input),
      h("p", {}, h("button", { class: "primary" }, "Go on")),
    ),
  );
  input.focus();
}

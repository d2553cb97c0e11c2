/** The page of the service: asks for the token where one is wanted, and shows the sections that there are. */

import { getJson, hasToken, lacksToken, setToken } from "./api.js";
import { field, fill, h } from "./dom.js";
import { mountGallery } from "./gallery.js";
import { mountRun } from "./run.js";
import { mountUpload } from "./upload.js";

const content = document.getElementById("content");
const navigation = document.getElementById("navigation");

async function begin() {
  fill(content, h("p", { class: "soft waiting" }, "Asks the service what it has."));
  try {
    if (await lacksToken()) return askToken("");
    show({ ...(await getJson("v1/model")), has_token: hasToken() });
  } catch (error) {
    if (error.status === 401) {
      setToken("");
      askToken("The service has another token than this one.");
    } else fill(content, h("p", { class: "notice bad", role: "alert" }, error.message), retryButton());
  }
}

function retryButton() {
  return h("button", { type: "button", onclick: begin }, "Try again");
}

function askToken(problem) {
  const input = h("input", { type: "password", autocomplete: "off", required: true, id: "token" });
  const submit = (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    begin();
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

/** Shows the sections of a model with these facts, each built when it is first looked at. */
function show(model) {
  document.getElementById("model").textContent = modelText(model);
  const sections = {
    gallery: ["Gallery", (root) => mountGallery(root, model)],
    upload: ["Your image", (root) => mountUpload(root, model)],
    ...(model.live ? { run: ["Training", (root) => mountRun(root, "run/")] } : {}),
  };
  const roots = {};
  fill(content);
  fill(navigation, Object.entries(sections).map(([name, [title]]) => h("a", { href: `#${name}` }, title)));
  function turn() {
    const asked = location.hash.slice(1);
    if (asked === "content" && navigation.querySelector("[aria-current]")) return content.focus();
    const name = asked in sections ? asked : "gallery";
    if (!roots[name]) {
      content.append((roots[name] = h("section", { "aria-label": sections[name][0] })));
      sections[name][1](roots[name]);
    }
    for (const [other, root] of Object.entries(roots)) root.hidden = other !== name;
    for (const link of navigation.children) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }
  window.addEventListener("hashchange", turn);
  turn();
}

function modelText(model) {
  const version = model.lineage?.name ? `${model.lineage.name}, version ${model.version}` : `step ${model.version}`;
  return `${version} · ${model.size} × ${model.size} · ${model.transform}, ${model.levels} ${model.levels === 1 ? "level" : "levels"}`;
}

begin();

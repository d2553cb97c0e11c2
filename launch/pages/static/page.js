/** The page of the service: asks for the token where one is wanted, and shows the sections that there are. */

import { getJson, hasToken, lacksToken, setToken } from "./api.js";
import { fill, h } from "./dom.js";
import { mountGallery } from "./gallery.js";
import { mountRun } from "./run.js";
import { askToken } from "./token.js";
import { mountUpload } from "./upload.js";

const content = document.getElementById("content");
const navigation = document.getElementById("navigation");

async function begin() {
  fill(content, h("p", { class: "soft waiting" }, "Asks the service what it has."));
  try {
    if (await lacksToken()) return askToken(content, "", begin);
    show({ ...(await getJson("v1/model")), has_token: hasToken() });
  } catch (error) {
    if (error.status === 401) {
      setToken("");
      askToken(content, "The service has another token than this one.", begin);
    } else fill(content, h("p", { class: "notice bad", role: "alert" }, error.message), retryButton());
  }
}

function retryButton() {
  return h("button", { type: "button", onclick: begin }, "Try again");
}

/** Shows the sections of a model with these facts, each built when it is first looked at. */
function show(model) {
  const about = document.getElementById("model");
  let version = model.version;
  about.textContent = modelText(model);
  window.addEventListener("version", async ({ detail }) => {
    if (detail === version) return;
    version = detail; // promoted, rolled back, or a newer checkpoint: pictures from now on are that one's
    about.textContent = modelText(await getJson("v1/model"));
  });
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
  const size = `${model.frames > 1 ? `${model.frames} × ` : ""}${model.width} × ${model.height}`;
  return `${version} · ${size}${model.channels === 1 || model.channels === 3 ? "" : `, ${model.channels} channels`} · ${model.transform}, ${model.levels} ${model.levels === 1 ? "level" : "levels"}`;
}

begin();

/** The page of `freqgan watch`: asks for the token where one is wanted, and shows the run. */

import { getJson, lacksToken, setToken } from "./api.js";
import { fill, h } from "./dom.js";
import { mountRun } from "./run.js";
import { askToken } from "./token.js";

const BASE = "run/";
const content = document.getElementById("content");

async function begin() {
  fill(content, h("p", { class: "soft waiting" }, "Reads the run."));
  try {
    if (await lacksToken()) return askToken(content, "", begin);
    await getJson(`${BASE}facts`);
  } catch (error) {
    if (error.status !== 401) return fill(content, h("p", { class: "notice bad", role: "alert" }, error.message), h("p", {}, h("button", { type: "button", onclick: begin }, "Try again")));
    setToken("");
    return askToken(content, "The service has another token than this one.", begin);
  }
  const root = h("section", { "aria-label": "Training" });
  fill(content, root);
  mountRun(root, BASE, name);
}

/** Says in the title, which a tab shows, how far the run is. */
function name(facts) {
  const share = facts.total_images ? `${Math.floor((100 * facts.images) / facts.total_images)} % ` : "";
  const title = `${share}${facts.name} · FreqGAN`;
  if (document.title !== title) document.title = title;
  document.getElementById("place").textContent = facts.run;
}

begin();

// Begins: what the network is, and the views.

import { ask, byId, complain, percent } from "./ask.js";
import { beginData } from "./data.js";
import { beginImage } from "./image.js";
import { beginLayers } from "./layers.js";
import { beginReview } from "./review.js";

const VIEWS = ["image", "review"];

function show(view) {
  for (const name of VIEWS) {
    const chosen = name === view;
    const tab = byId(`tab-${name}`);
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    byId(`view-${name}`).hidden = !chosen;
  }
  document.dispatchEvent(new CustomEvent("view", { detail: view }));
}

function fromAddress() {
  const view = location.hash.slice(1);
  show(VIEWS.includes(view) ? view : VIEWS[0]);
}

function beginTabs() {
  VIEWS.forEach((name, place) => {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => {
      location.hash = name;
    });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined) return;
      const other = VIEWS[(place + step + VIEWS.length) % VIEWS.length];
      location.hash = other;
      byId(`tab-${other}`).focus();
    });
  });
  addEventListener("hashchange", fromAddress);
  fromAddress();
}

async function begin() {
  const about = await ask("api/about");
  const title = `What does ${about.network} see?`;
  document.title = title;
  byId("title").textContent = title;
  const [measured, images] =
    "test" in about.recorded
      ? [about.recorded.test, "Test"]
      : [about.recorded.val, "Validation"];
  const accuracy = measured === undefined ? "" : ` ${images} accuracy ${percent(measured)}.`;
  byId("lead").textContent =
    `Trained on ${about.name}: ${about.classes.length} classes.${accuracy}` +
    (about.demo ? " The images were drawn by code." : "");
  beginData();
  beginImage(about);
  beginLayers(about);
  beginReview(about);
  beginTabs();
}

begin().catch(complain);

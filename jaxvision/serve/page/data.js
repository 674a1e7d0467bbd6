// The data set of the network: how far it is read, and its images.

import { ask, byId, complain, make, percent, query } from "./ask.js";

const state = { ready: false, image: null, unit: null };
const PAUSE = 700; // milliseconds

export function beginData() {
  document.addEventListener("image", ({ detail }) => {
    state.image = detail;
    byId("nearest").hidden = false;
    showNearest();
  });
  document.addEventListener("unit", ({ detail }) => {
    state.unit = detail;
    showExciting();
  });
  watch();
}

async function watch() {
  let found;
  try {
    found = await ask("api/data");
  } catch {
    setTimeout(watch, 5 * PAUSE);
    return;
  }
  for (const place of document.querySelectorAll("[data-state]")) {
    place.textContent = words(found);
  }
  if (found.state === "ready") {
    state.ready = true;
    document.dispatchEvent(new CustomEvent("data"));
    showNearest();
    showExciting();
  } else if (found.state !== "absent") {
    setTimeout(watch, PAUSE);
  }
}

function words({ state, done, all, said }) {
  if (state === "ready") return "";
  if (state === "absent") return `Without the data set: ${said}.`;
  const much = all ? `: ${done} of ${all} images` : "";
  return `${state === "looking" ? "Looking at" : "Reading"} the data set${much}.`;
}

/** The address of an image of the data set. */
export const imageAddress = (index) => `api/data/${index}.png`;

async function showNearest() {
  const { image, ready } = state;
  if (!ready || image === null) return;
  try {
    const { images } = await ask(`api/images/${image}/nearest`);
    if (image !== state.image) return;
    byId("nearest-images").replaceChildren(
      ...images.map(({ index, path, label, split, cosine }) =>
        figure(index, path, label, `${split}, ${percent(cosine)} alike`),
      ),
    );
  } catch (error) {
    complain(error);
  }
}

async function showExciting() {
  const { unit, ready } = state;
  if (!ready || unit === null) return;
  try {
    const { images } = await ask(`api/data/exciting?${query(unit)}`);
    if (unit !== state.unit) return;
    byId("exciting").replaceChildren(
      ...images.map(({ index, path, label, value, down, across }) => {
        const shown = figure(index, path, label, value.toPrecision(3));
        const dot = make("i", { class: "dot" });
        dot.style.top = `${100 * down}%`;
        dot.style.left = `${100 * across}%`;
        shown.querySelector(".frame").append(dot);
        return shown;
      }),
    );
  } catch (error) {
    complain(error);
  }
}

function figure(index, path, label, more) {
  const image = make("img", { src: imageAddress(index), alt: path, title: path });
  const frame = make("div", { class: "frame", children: [image] });
  const words = make("figcaption", {
    children: [make("b", { text: label }), make("span", { class: "quiet", text: more })],
  });
  return make("li", { children: [make("figure", { children: [frame, words] })] });
}

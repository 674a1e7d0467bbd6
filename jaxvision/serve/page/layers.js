// Layers: their feature maps, and what a unit sees of the image.

import { ask, byId, latest, make, query } from "./ask.js";

const state = { image: null, start: 0, unit: null, layers: [], size: [1, 1] };

export function beginLayers(about) {
  state.layers = about.layers;
  state.size = about.size;
  byId("layer").append(
    ...about.layers.map(({ name }) => make("option", { value: name, text: name })),
  );
  // One in the middle: neither edges nor classes.
  const local = about.layers.filter(({ sees }) => sees);
  const usual = local[Math.floor(local.length / 3)] ?? about.layers[0];
  byId("layer").value = usual.name;
  byId("layer").addEventListener("change", begin);
  byId("more-units").addEventListener("click", () => showUnits());
  document.addEventListener("image", (event) => {
    state.image = event.detail;
    byId("layers").hidden = false;
    byId("unit-image").src = `api/images/${state.image}/pixels.png`;
    const [height, width] = state.size;
    byId("unit-frame").style.aspectRatio = `${width} / ${height}`;
    begin();
  });
  beginKeys();
}

function begin() {
  const { shape, sees } = state.layers.find(({ name }) => name === byId("layer").value);
  const places = shape.length === 3 ? `${shape[1]}×${shape[0]} places of ` : "";
  byId("about-layer").textContent =
    `${places}${shape.at(-1)} units; each sees ` +
    (sees ? `${sees[1]}×${sees[0]} pixels.` : "the whole image.") +
    " Those that this image excites most come first.";
  byId("units").replaceChildren();
  state.start = 0;
  state.unit = null;
  showBox("theoretical", null);
  showBox("effective", null);
  showUnits();
}

const showUnits = latest(async () => {
  const { image, start } = state;
  const layer = byId("layer").value;
  const where = query({ layer, start });
  const { units, columns, page } = await ask(`api/images/${image}/units?${where}`);
  if (image !== state.image || layer !== byId("layer").value || start !== state.start) {
    return;
  }
  const rows = Math.ceil(units.length / columns);
  const url = `url("api/images/${image}/sheet.png?${where}")`;
  const { shape } = state.layers.find(({ name }) => name === layer);
  units.forEach(({ unit, mean }, place) => {
    const tile = make("button", {
      type: "button",
      role: "option",
      class: "unit",
      tabindex: place + start === 0 ? "0" : "-1",
      "aria-selected": "false",
      "aria-label": `unit ${unit}, mean ${mean.toPrecision(3)}`,
      "data-unit": unit,
      children: [make("span", { class: "map" }), make("span", { text: unit })],
    });
    const map = tile.firstChild.style;
    map.aspectRatio = shape.length === 3 ? `${shape[1]} / ${shape[0]}` : "1";
    map.backgroundImage = url;
    map.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    const share = (number, count) => (count > 1 ? (100 * number) / (count - 1) : 0);
    map.backgroundPosition =
      `${share(place % columns, columns)}% ` +
      `${share(Math.floor(place / columns), rows)}%`;
    tile.addEventListener("pointerenter", () => look(tile));
    tile.addEventListener("focus", () => look(tile));
    tile.addEventListener("click", () => look(tile));
    byId("units").append(tile);
  });
  state.start += page;
  byId("more-units").hidden = state.start >= shape.at(-1);
});

function beginKeys() {
  byId("units").addEventListener("keydown", (event) => {
    const tiles = [...byId("units").children];
    const here = tiles.indexOf(document.activeElement);
    if (here < 0) return;
    const top = tiles[0].offsetTop;
    const columns = tiles.filter((tile) => tile.offsetTop === top).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const there = tiles[here + (steps[event.key] ?? NaN)];
    if (there === undefined) return;
    event.preventDefault();
    there.focus();
  });
}

function look(tile) {
  const unit = Number(tile.dataset.unit);
  if (state.unit === unit) return;
  state.unit = unit;
  for (const other of byId("units").children) {
    const chosen = other === tile;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
  }
  showField(unit);
  document.dispatchEvent(
    new CustomEvent("unit", { detail: { layer: byId("layer").value, unit } }),
  );
}

const showField = latest(async (unit) => {
  const layer = byId("layer").value;
  const found = await ask(
    `api/images/${state.image}/field?${query({ layer, unit })}`,
  );
  if (unit !== state.unit) return;
  showBox("theoretical", found.theoretical);
  showBox("effective", found.effective);
  const size = (box) => `${box.right - box.left + 1}×${box.bottom - box.top + 1} pixels`;
  const can = found.theoretical ? size(found.theoretical) : "the whole image";
  const does = found.effective ? size(found.effective) : "nothing: no pixel changes it";
  byId("unit-said").textContent =
    `Unit ${unit}, at its highest place (${found.value.toPrecision(3)}): ` +
    `can see ${can}, does see ${does}.`;
});

function showBox(name, box) {
  const place = byId(name);
  place.hidden = box === null;
  if (box === null) return;
  const [height, width] = state.size;
  place.style.left = `${(100 * box.left) / width}%`;
  place.style.top = `${(100 * box.top) / height}%`;
  place.style.width = `${(100 * (box.right - box.left + 1)) / width}%`;
  place.style.height = `${(100 * (box.bottom - box.top + 1)) / height}%`;
}

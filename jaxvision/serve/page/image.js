// One image: what the network says of it, why, and what it says when a part is hidden.

import { ask, askImage, byId, complain, latest, make, percent, query } from "./ask.js";

const TOP = 5;
const KEPT = "image"; // in the session's storage: shown again when the page is reloaded

const state = { image: null, label: null, classes: [], size: [1, 1], names: [], square: [0.3, 0.3] };

export function beginImage(about) {
  state.size = about.size;
  state.names = about.classes;
  for (const method of about.methods) {
    byId("method").append(make("option", { value: method.key, text: method.name }));
  }
  const usual = about.methods.find((method) => method.key === "grad_cam");
  if (usual) byId("method").value = usual.key;
  const describe = () => {
    const method = about.methods.find((one) => one.key === byId("method").value);
    byId("about-method").textContent = method?.about ?? "";
  };
  describe();
  byId("method").addEventListener("change", () => {
    describe();
    showEvidence();
  });
  byId("label").addEventListener("change", () => choose(byId("label").value));
  byId("opacity").addEventListener("input", setOpacity);
  beginGiving();
  beginOccluder();
  const kept = sessionStorage.getItem(KEPT);
  if (kept) showImage(kept).catch(() => sessionStorage.removeItem(KEPT));
}

function beginGiving() {
  const give = latest(async (file) => {
    location.hash = "image";
    byId("stage").setAttribute("aria-busy", "true");
    try {
      const { image } = await ask("api/images", { method: "POST", body: file });
      await showImage(image);
    } finally {
      byId("stage").removeAttribute("aria-busy");
    }
  });
  const first = (transfer) => {
    const file = [...(transfer?.files ?? [])][0];
    if (file) give(file);
    return file !== undefined;
  };
  byId("file").addEventListener("change", (event) => {
    first(event.target);
    event.target.value = "";
  });
  byId("another").addEventListener("click", () => byId("file").click());
  addEventListener("paste", (event) => {
    if (first(event.clipboardData)) event.preventDefault();
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("stage").classList.add("over");
  });
  addEventListener("dragleave", () => byId("stage").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    byId("stage").classList.remove("over");
    if (!first(event.dataTransfer)) complain(new Error("That is no file."));
  });
}

async function showImage(image) {
  const { classes, known } = await ask(`api/images/${image}/classes`);
  complain();
  state.image = image;
  sessionStorage.setItem(KEPT, image);
  byId("pixels").src = `api/images/${image}/pixels.png`;
  const [height, width] = state.size;
  byId("size").textContent = `${width}×${height} pixels, as the network sees it.`;
  byId("drop").classList.add("hidden");
  for (const id of ["frame", "under", "answers"]) byId(id).hidden = false;
  byId("frame").style.aspectRatio = `${width} / ${height}`;
  byId("label").replaceChildren(
    ...classes.map(({ label }) => make("option", { value: label, text: label })),
  );
  byId("hide").checked = false;
  placeOccluder();
  showClasses(classes, known);
  choose(classes[0].label);
  document.dispatchEvent(new CustomEvent("image", { detail: image }));
}

function showClasses(classes, known) {
  state.classes = classes;
  byId("unknown").hidden = known;
  const shown = classes.slice(0, TOP);
  byId("classes").replaceChildren(
    ...shown.map(({ label, probability }) => {
      const fill = make("span", { class: "fill" });
      fill.style.width = `${100 * probability}%`;
      const button = make("button", {
        type: "button",
        class: "class",
        title: "Show what speaks for it",
        "aria-pressed": String(label === state.label),
        children: [
          make("span", { class: "name", text: label }),
          make("span", { class: "num", text: percent(probability) }),
          make("span", { class: "bar", "aria-hidden": "true", children: [fill] }),
        ],
      });
      button.addEventListener("click", () => choose(label));
      return make("li", { children: [button] });
    }),
  );
  byId("said").textContent =
    `${shown[0].label}, ${percent(shown[0].probability)}` +
    (known ? "" : ", or none of the classes") +
    (byId("hide").checked ? " with a part hidden" : "");
}

function choose(label) {
  state.label = label;
  byId("label").value = label;
  for (const button of byId("classes").querySelectorAll("button")) {
    const name = button.querySelector(".name").textContent;
    button.setAttribute("aria-pressed", String(name === label));
  }
  showEvidence();
}

const showEvidence = latest(async () => {
  const shown = byId("evidence");
  const { image, label } = state;
  const method = byId("method").value;
  byId("frame").setAttribute("aria-busy", "true");
  try {
    const url = await askImage(
      `api/images/${image}/evidence.png?${query({ method, label: state.names.indexOf(label) })}`,
    );
    const before = shown.src;
    shown.src = url;
    // Not before: what is still loading would fail.
    await shown.decode();
    if (before) URL.revokeObjectURL(before);
    shown.dataset.method = method;
    shown.alt = `What speaks for ${label}`;
    setOpacity();
    complain();
  } finally {
    byId("frame").removeAttribute("aria-busy");
  }
});

function setOpacity() {
  const hiding = byId("hide").checked;
  byId("evidence").style.opacity = byId("opacity").value / 100;
  // What the square hides would still glow.
  byId("evidence").hidden = hiding || !byId("evidence").src;
}

function beginOccluder() {
  const square = byId("occluder");
  byId("hide").addEventListener("change", () => {
    placeOccluder();
    setOpacity();
    askHidden();
  });
  byId("side").addEventListener("input", () => {
    placeOccluder();
    askHidden();
  });
  const moveTo = (left, top) => {
    const side = byId("side").value / 100;
    const cut = (value) => Math.min(Math.max(value, 0), 1 - side);
    state.square = [cut(left), cut(top)];
    placeOccluder();
    askHidden();
  };
  let grip = null;
  square.addEventListener("pointerdown", (event) => {
    const at = square.getBoundingClientRect();
    grip = [event.clientX - at.left, event.clientY - at.top];
    square.setPointerCapture(event.pointerId);
  });
  square.addEventListener("pointermove", (event) => {
    if (grip === null) return;
    const frame = byId("frame").getBoundingClientRect();
    moveTo(
      (event.clientX - grip[0] - frame.left) / frame.width,
      (event.clientY - grip[1] - frame.top) / frame.height,
    );
  });
  for (const name of ["pointerup", "pointercancel"]) {
    square.addEventListener(name, () => {
      grip = null;
    });
  }
  square.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = step[event.key];
    if (move === undefined) return;
    event.preventDefault();
    const length = event.shiftKey ? 0.1 : 0.03;
    moveTo(state.square[0] + length * move[0], state.square[1] + length * move[1]);
  });
}

function placeOccluder() {
  const square = byId("occluder");
  square.hidden = !byId("hide").checked;
  const side = byId("side").value;
  const [height, width] = state.size;
  const [left, top] = state.square.map((value) => Math.min(value, 1 - side / 100));
  state.square = [left, top];
  square.style.left = `${100 * left}%`;
  square.style.top = `${100 * top}%`;
  square.style.width = `${(side * Math.min(width, height)) / width}%`;
  square.style.height = `${(side * Math.min(width, height)) / height}%`;
}

const askHidden = latest(async () => {
  const [height, width] = state.size;
  const place = byId("hide").checked
    ? {
        left: Math.round(state.square[0] * width),
        top: Math.round(state.square[1] * height),
        side: Math.round((byId("side").value / 100) * Math.min(width, height)),
      }
    : {};
  const { classes, known } = await ask(
    `api/images/${state.image}/classes?${query(place)}`,
  );
  showClasses(classes, known);
});

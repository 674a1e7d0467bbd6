import { prepare } from "./resize.js";

const RUNTIME = "./node_modules/onnxruntime-web/dist/";
const SHOWN = 5;

const byId = (id) => document.getElementById(id);

async function start() {
  const [about, page] = await Promise.all([json("labels.json"), json("package.json")]);
  const version = page.dependencies["onnxruntime-web"];
  const ort = await runtime(version);
  const session = await ort.InferenceSession.create("model.onnx");
  const [input] = session.inputMetadata;
  const fixed = typeof input.shape[0] === "number" ? input.shape[0] : 1;
  const count = Math.max(fixed, 1);

  async function classify(blob) {
    say("Classifying.");
    const image = await decoded(blob);
    const pixels = prepare(image, about.preprocessing);
    show(pixels, about.preprocessing);
    const [height, width] = about.preprocessing.size;
    const batch = new Uint8Array(pixels.length * count);
    for (let i = 0; i < count; i++) batch.set(pixels, i * pixels.length);
    const shape = [count, height, width, about.preprocessing.gray ? 1 : 3];
    const tensor = new ort.Tensor("uint8", batch, shape);
    const { probabilities } = await session.run({ [input.name]: tensor });
    list(Array.from(probabilities.data).slice(0, about.labels.length), about.labels);
  }

  const take = (blob) => classify(blob).catch((error) => say(error.message));
  listen(take);
  byId("drop").hidden = false;
  say("");
}

async function json(file) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file}: the server answered ${response.status}.`);
  return response.json();
}

async function runtime(version) {
  const fix = "Run npm install --ignore-scripts in the folder of this page.";
  let ort;
  try {
    ort = await import(`${RUNTIME}ort.wasm.bundle.min.mjs`);
  } catch {
    throw new Error(`ONNX Runtime is not beside this page. ${fix}`);
  }
  if (ort.env.versions.web !== version) {
    throw new Error(
      `ONNX Runtime ${ort.env.versions.web} lies beside this page, which is made for ` +
        `${version}. ${fix}`,
    );
  }
  ort.env.wasm.wasmPaths = new URL(RUNTIME, location.href).href;
  return ort;
}

/** The pixels of an image, upright, on white where it is transparent. */
async function decoded(blob) {
  let bitmap;
  try {
    // Colors as they are in the file, which is how the network was trained.
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("That is no image that this browser reads.");
  }
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function show(pixels, { size: [height, width], gray }) {
  const canvas = byId("seen");
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[gray ? i : 3 * i + c];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function list(probabilities, labels) {
  const order = labels.map((_, i) => i);
  order.sort((a, b) => probabilities[b] - probabilities[a]);
  const rows = order.slice(0, SHOWN).map((i) => {
    const row = document.createElement("li");
    const [name, value] = [document.createElement("span"), document.createElement("span")];
    // Text, whatever a class is called.
    name.textContent = labels[i];
    value.textContent = `${(100 * probabilities[i]).toFixed(1)} %`;
    const bar = document.createElement("meter");
    bar.value = probabilities[i];
    bar.setAttribute("aria-hidden", "true");
    row.append(name, value, bar);
    return row;
  });
  byId("classes").replaceChildren(...rows);
  byId("answer").hidden = false;
  say(`It says ${labels[order[0]]}.`);
}

function listen(take) {
  const drop = byId("drop");
  const first = (files) => files.length > 0 && take(files[0]);
  byId("file").addEventListener("change", (event) => first(event.target.files));
  addEventListener("paste", (event) => first(event.clipboardData.files));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") first(event.dataTransfer.files);
    });
  }
}

function say(text) {
  byId("state").textContent = text;
}

start().catch((error) => say(error.message));

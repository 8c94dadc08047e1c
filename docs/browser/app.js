// Labels pictures with model.onnx, which `retrain export --format onnx` wrote, and ONNX Runtime Web in ort/.
import * as ort from "./ort/ort.wasm.min.mjs";

const at = (id) => document.getElementById(id);
const file = at("file"), drop = at("drop"), state = at("state"), picture = at("picture"), list = at("labels");
const MOST = 8; // times the side that the network takes: what is larger, the canvas makes smaller first
let session, about, turn = 0;

ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more would need two headers from the server

function say(text, bad = false) {
  state.textContent = text;
  state.classList.toggle("bad", bad);
}

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer;
}

// How much of each pixel along a side of `from` pixels goes into each of `to` pixels: bicubic, and wider where a picture gets
// smaller, as Pillow does it in `retrain`. The filter of a canvas is another one in every browser, and moves scores.
function shares(from, to) {
  const scale = from / to, wide = Math.max(scale, 1), found = [];
  for (let number = 0; number < to; number++) {
    const middle = (number + 0.5) * scale;
    const first = Math.max(0, Math.trunc(middle - 2 * wide + 0.5));
    const end = Math.min(from, Math.trunc(middle + 2 * wide + 0.5));
    const row = Float64Array.from({length: end - first}, (_, index) => cubic((first + index - middle + 0.5) / wide));
    const sum = row.reduce((one, other) => one + other);
    found.push([first, row.map((value) => value / sum)]);
  }
  return found;
}

function cubic(x) {
  const far = Math.abs(x);
  if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
  return far < 2 ? ((-0.5 * far + 2.5) * far - 4) * far + 2 : 0;
}

// Scales `lines` lines of `from` pixels to `to` pixels. Pixels of a line lie `step` values apart, lines `next`.
function scaled(source, from, to, lines, step, next, target, targetStep, targetNext) {
  shares(from, to).forEach(([first, row], number) => {
    for (let line = 0; line < lines; line++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0, place = line * next + first * step + channel;
        for (let index = 0; index < row.length; index++, place += step) sum += row[index] * source[place];
        target[line * targetNext + number * targetStep + channel] = sum; // clamped: rounded, 0 to 255
      }
    }
  });
}

// Pixels as the network takes them: upright, on white, squashed to a square; float32 (1, side, side, 3), values 0 to 255.
function pixels(bitmap, side) {
  const width = Math.min(bitmap.width, MOST * side), height = Math.min(bitmap.height, MOST * side);
  const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true, colorSpace: "srgb"});
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const {data} = context.getImageData(0, 0, width, height); // four values a pixel
  const narrow = new Uint8ClampedArray(side * height * 3), square = new Uint8ClampedArray(side * side * 3);
  scaled(data, width, side, height, 4, 4 * width, narrow, 3, 3 * side);
  scaled(narrow, height, side, side, 3 * side, 3, square, 3 * side, 3);
  return new ort.Tensor("float32", Float32Array.from(square), [1, side, side, 3]);
}

// Returns [label, score] of all labels, highest first.
async function labelled(blob) {
  const bitmap = await createImageBitmap(blob, {imageOrientation: "from-image", colorSpaceConversion: "none"});
  try {
    const feeds = {};
    for (const {name, shape} of about.inputs) feeds[name] = pixels(bitmap, shape[0]);
    const {scores} = await session.run(feeds);
    return about.labels.map((label, number) => [label, scores.data[number]]).sort((one, other) => other[1] - one[1]);
  } finally {
    bitmap.close();
  }
}

function show(blob, found) {
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(blob);
  picture.alt = blob.name;
  picture.hidden = list.hidden = false;
  list.replaceChildren(...found.map(([label, score]) => {
    const row = document.createElement("li"), name = document.createElement("span"), value = document.createElement("span");
    name.textContent = label;
    value.textContent = score.toFixed(5);
    row.style.setProperty("--share", `${score * 100}%`);
    row.append(name, value);
    return row;
  }));
}

async function take(blob) {
  if (!blob || !session) return;
  const mine = ++turn;
  say("Looking …");
  let found;
  try {
    found = await labelled(blob);
  } catch (error) {
    if (mine === turn) say(`${blob.name} cannot be used: ${error.message}`, true);
    return;
  }
  if (mine !== turn) return; // another picture was given meanwhile
  show(blob, found);
  say(`${blob.name}: ${found[0][0]}`);
}

file.addEventListener("change", () => take(file.files[0]));
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}

try {
  about = await (await fetched("metadata.json")).json();
  session = await ort.InferenceSession.create(await (await fetched("model.onnx")).arrayBuffer(), {executionProviders: ["wasm"]});
  file.disabled = false;
  say(about.view === "squash" ? "Ready." : "Ready. The model learnt from pictures without their borders; cut them off first.");
} catch (error) {
  say(`The model cannot be loaded: ${error.message}`, true);
}

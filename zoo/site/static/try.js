// The page that runs models: choose a model and a clip, look at the forecast.

import { drawChart } from "./chart.js";
import { loadModel, squaredError } from "./model.js";
import { readFile, readNpy, Throwing } from "./sources.js";

const $ = (id) => document.getElementById(id);
const entries = JSON.parse($("models").textContent);
const SIDE = 28; // of a drawn digit
const MOST_SPEED = 5; // pixels a frame
const LIVE_FRAMES = 60; // shown in the chart of the live mode

const page = { model: null, entry: null, clip: null, past: [], truth: [], forecast: [], errors: {} };
globalThis.zooPage = page; // for the console and for tests
let ort, busy = Promise.resolve(), live = null, playing = null;

// ---- models ------------------------------------------------------------------------------------

async function openRuntime() {
  const gpu = $("gpu").checked;
  const runtime = await import(gpu ? "./onnxruntime/ort.webgpu.min.mjs" : "./onnxruntime/ort.wasm.min.mjs");
  runtime.env.wasm.wasmPaths = new URL("./onnxruntime/", import.meta.url).href;
  runtime.env.wasm.numThreads = 1; // more need headers that static hosts do not send
  return { runtime, providers: gpu ? ["webgpu", "wasm"] : ["wasm"] };
}

async function chooseModel(name) {
  stopLive();
  page.entry = entries.find((entry) => entry.name === name) ?? entries[0];
  $("model").value = page.entry.name;
  say(`loading ${page.entry.name} …`);
  ort ??= await openRuntime();
  page.model = await loadModel(ort.runtime, `models/${page.entry.name}`, ort.providers);
  $("horizon").value = page.entry.horizon;
  $("card").href = `models/${page.entry.name}/index.html`;
  showCosts();
  fillSamples();
  await chooseSample();
}

function fillSamples() {
  const options = page.entry.samples.map(({ title, file }) => new Option(title, file));
  $("sample").replaceChildren(...options, new Option("moving digits (draw and throw)", "digits"));
}

async function chooseSample() {
  const chosen = $("sample").value;
  $("digits").hidden = chosen !== "digits";
  if (chosen === "digits") return throwDigits();
  const response = await fetch(chosen);
  if (!response.ok) throw new Error(`${chosen}: ${response.status}`);
  await setClip(readNpy(await response.arrayBuffer()));
}

// ---- forecasts ---------------------------------------------------------------------------------

async function setClip(clip) {
  const { size, in_channels: channels } = page.model.description.config;
  if (channels !== 1) throw new Error(`${page.entry.name} needs ${channels} channels; this page has gray clips`);
  if (size && (size[0] !== clip.height || size[1] !== clip.width)) {
    throw new Error(`${page.entry.name} needs frames of ${size.join(" × ")}, not ${clip.height} × ${clip.width}`);
  }
  page.clip = clip;
  await run();
}

async function run() {
  if (live) return;
  const { clip, model, entry } = page;
  const horizon = Math.min(100, Math.max(1, Number($("horizon").value) || 1));
  const given = clip.frames.length > entry.input_frames ? entry.input_frames : clip.frames.length;
  const past = clip.frames.slice(0, given);
  const start = performance.now();
  const forecast = await model.forecast(past, horizon, clip.height, clip.width, (done, steps) =>
    say(`step ${done} of ${steps}`),
  );
  const steps = given - 1 + horizon;
  page.past = past;
  page.truth = clip.frames.slice(given, given + horizon);
  page.forecast = forecast.map((frame) => frame.map((x) => Math.min(1, Math.max(0, x))));
  page.errors = {
    model: page.truth.map((frame, t) => squaredError(page.forecast[t], frame)),
    persistence: page.truth.map((frame) => squaredError(past.at(-1), frame)),
  };
  $("speed").textContent = `${((performance.now() - start) / steps).toFixed(0)} ms a step`;
  $("time").min = 1 - given;
  $("time").max = horizon;
  $("time").value = Math.min(Number($("time").value), horizon);
  say(summary());
  show();
}

function summary() {
  const mean = (values) => (values.reduce((a, b) => a + b, 0) / values.length).toFixed(1);
  if (!page.truth.length) return `${page.forecast.length} frames forecast; the clip has no more frames to compare with`;
  return `squared error a frame: model ${mean(page.errors.model)}, persistence ${mean(page.errors.persistence)}`;
}

function show() {
  const t = Number($("time").value);
  $("when").textContent = t > 0 ? `t+${t}` : t < 0 ? `t${t}` : "t";
  const input = page.past[Math.min(page.past.length - 1, page.past.length - 1 + t)];
  draw($("input"), input);
  draw($("truth"), t > 0 ? page.truth[t - 1] : input);
  draw($("forecast"), t > 0 ? page.forecast[t - 1] : input);
  for (const name of ["truth", "forecast"]) $(name).parentElement.className = t > 0 ? "makes" : "reads";
  drawChart($("chart"), page.errors, { now: t, label: "lead time / frames" });
}

function draw(canvas, frame) {
  const { height, width } = page.clip;
  canvas.width = width;
  canvas.height = height;
  canvas.style.aspectRatio = `${width} / ${height}`;
  const context = canvas.getContext("2d");
  if (!frame) return context.clearRect(0, 0, width, height);
  const image = context.createImageData(width, height);
  frame.forEach((value, i) => {
    image.data.fill(Math.round(255 * Math.min(1, Math.max(0, value))), 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

// ---- playing -----------------------------------------------------------------------------------

function play() {
  if (playing) return pause();
  const slider = $("time");
  const move = () => {
    slider.value = Number(slider.value) >= Number(slider.max) ? slider.min : Number(slider.value) + 1;
    show();
  };
  playing = setInterval(move, 200);
  $("play").setAttribute("aria-pressed", "true");
}

function pause() {
  clearInterval(playing);
  playing = null;
  $("play").setAttribute("aria-pressed", "false");
}

// ---- live mode: the network reads each new frame and forecasts the next -------------------------

async function startLive() {
  pause();
  const token = (live = {});
  $("live").setAttribute("aria-pressed", "true");
  const { clip, model } = page;
  const endless = $("sample").value === "digits" ? new Throwing(structuredClone(digits)) : null;
  const read = (t) => endless?.next() ?? clip.frames[t % clip.frames.length];
  let state = model.initialState(clip.height, clip.width);
  let frame = read(0);
  const errors = { model: [], persistence: [] };
  for (let t = 1; live === token; t++) {
    const made = await model.step(frame, state, clip.height, clip.width);
    if (live !== token) return;
    state = made.state;
    const next = read(t);
    draw($("input"), frame);
    draw($("truth"), next);
    draw($("forecast"), made.frame);
    errors.model.push(squaredError(made.frame, next));
    errors.persistence.push(squaredError(frame, next));
    for (const values of Object.values(errors)) if (values.length > LIVE_FRAMES) values.shift();
    drawChart($("chart"), errors, { label: "frames read" });
    page.liveFrames = t;
    say(`live: ${t} frames read, one frame ahead`);
    frame = next;
    await new Promise((resolve) => setTimeout(resolve, 80));
  }
}

function stopLive() {
  live = null;
  $("live").setAttribute("aria-pressed", "false");
}

// ---- digits to draw and to throw ---------------------------------------------------------------

let digits = [];

function typedDigits() {
  const text = $("typed").value.replace(/\s/g, "").slice(0, 3) || "37";
  return [...text].map((character) => {
    const canvas = new OffscreenCanvas(SIDE, SIDE);
    const context = readable(canvas);
    context.fillStyle = "#fff";
    context.font = "26px cursive";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(character, SIDE / 2, SIDE / 2 + 2);
    return inkOf(canvas);
  });
}

/** The context of a canvas whose pixels are read. */
function readable(canvas) {
  return canvas.getContext("2d", { willReadFrequently: true });
}

function inkOf(canvas) {
  const { data } = readable(canvas).getImageData(0, 0, SIDE, SIDE);
  return Float32Array.from({ length: SIDE * SIDE }, (_, i) => data[4 * i + 3] / 255);
}

function placed(ink) {
  const speed = () => (Math.random() < 0.5 ? -1 : 1) * (1.5 + 2 * Math.random());
  const place = () => Math.round(36 * Math.random());
  return { ink, x: place(), y: place(), dx: speed(), dy: speed() };
}

async function throwDigits(thrown) {
  const drawn = inkOf($("pad"));
  const inks = typedDigits();
  if (drawn.some((x) => x > 0)) inks[0] = drawn;
  digits = inks.map(placed);
  if (thrown) Object.assign(digits[0], thrown);
  const count = page.entry.input_frames + Number($("horizon").value);
  await setClip(new Throwing(structuredClone(digits)).clip(count));
}

function drawOnPad(event) {
  if (!(event.buttons & 1)) return;
  const pad = $("pad");
  const box = pad.getBoundingClientRect();
  const at = (x, y) => [((x - box.left) / box.width) * SIDE, ((y - box.top) / box.height) * SIDE];
  const context = readable(pad);
  context.strokeStyle = "#fff";
  context.lineWidth = 2.4;
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(...at(event.clientX - event.movementX, event.clientY - event.movementY));
  context.lineTo(...at(event.clientX, event.clientY));
  context.stroke();
}

/** Dragging over the input panel throws the first digit from there, as fast as the drag. */
function throwFromPanel() {
  const panel = $("input");
  let start = null;
  const at = (event) => {
    const box = panel.getBoundingClientRect();
    const scale = page.clip.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale, time: event.timeStamp };
  };
  panel.addEventListener("pointerdown", (event) => {
    if ($("sample").value !== "digits" || live) return;
    start = at(event);
    panel.setPointerCapture(event.pointerId);
  });
  panel.addEventListener("pointerup", (event) => {
    if (!start) return;
    const end = at(event);
    const frames = Math.max(1, (end.time - start.time) / 40); // 25 frames a second
    const speed = (a, b) => Math.max(-MOST_SPEED, Math.min(MOST_SPEED, (b - a) / frames));
    const place = (value) => Math.max(0, Math.min(page.clip.width - SIDE, value - SIDE / 2));
    const thrown = { x: place(start.x), y: place(start.y), dx: speed(start.x, end.x), dy: speed(start.y, end.y) };
    start = null;
    attempt(() => throwDigits(thrown));
  });
}

// ---- the page ----------------------------------------------------------------------------------

function showCosts() {
  const { parameters, macs, bytes } = page.entry;
  const rows = { parameters: `${(parameters / 1e6).toFixed(2)} M`, "multiply-accumulates a step": macs, download: bytes };
  $("costs").replaceChildren(
    ...Object.entries(rows).flatMap(([name, value]) => {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      text.textContent = value;
      return [term, text];
    }),
  );
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").className = isError ? "error" : "";
  document.body.dataset.state = isError ? "error" : /^(loading|step)/.test(text) ? "busy" : "ready";
}

/** Run one task after the other, and show what goes wrong. */
function attempt(task) {
  busy = busy.then(task).catch((error) => say(error.message, true));
  return busy;
}

async function openFile(file) {
  if (!file) return;
  stopLive();
  say(`loading ${file.name} …`);
  const size = page.entry.size ?? [64, 64];
  await setClip(await readFile(file, size));
  $("digits").hidden = true;
}

$("model").addEventListener("change", () => attempt(() => chooseModel($("model").value)));
$("sample").addEventListener("change", () => (stopLive(), attempt(chooseSample)));
$("horizon").addEventListener("change", () => (stopLive(), attempt(run)));
$("gpu").addEventListener("change", () => {
  ort = null;
  attempt(() => chooseModel(page.entry.name));
});
$("time").addEventListener("input", () => (pause(), stopLive(), show()));
$("play").addEventListener("click", () => (stopLive(), play()));
$("live").addEventListener("click", () => (live ? (stopLive(), show()) : startLive().catch((error) => say(error.message, true))));
$("file").addEventListener("change", (event) => attempt(() => openFile(event.target.files[0])));
$("throw").addEventListener("click", () => (stopLive(), attempt(() => throwDigits())));
$("erase").addEventListener("click", () => readable($("pad")).clearRect(0, 0, SIDE, SIDE));
$("pad").addEventListener("pointermove", drawOnPad);
document.addEventListener("dragover", (event) => (event.preventDefault(), document.body.classList.add("drop")));
document.addEventListener("dragleave", () => document.body.classList.remove("drop"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("drop");
  attempt(() => openFile(event.dataTransfer.files[0]));
});
throwFromPanel();
$("gpu").parentElement.hidden = !("gpu" in navigator);
for (const { name } of entries) $("model").append(new Option(name, name));
attempt(() => chooseModel(new URLSearchParams(location.search).get("model")));
if ("serviceWorker" in navigator) navigator.serviceWorker.register("worker.js").catch(() => {});

// The page: buttons, drawings and words around a session; the hearing itself is in worker.js.

import { tempoOf } from "./beats.js";
import { clock, drawBars, drawTimeline, element } from "./draw.js";
import { Metronome } from "./metronome.js";
import { openMpeg } from "./mpeg.js";
import { busy, shown, START, step, usable, wantsMicrophone } from "./session.js";
import { CHOICES, defaults, read, write } from "./settings.js";
import { HearingError } from "./states.js";
import { Taps } from "./taps.js";
import { NAMES, translate } from "./texts.js";
import { decode, openWave } from "./waves.js";

const $ = (id) => document.getElementById(id);
const PATIENCE = 5000; // milliseconds that the sound of a machine may take to start
const base = new URL(".", import.meta.url).href;
const worker = new Worker(new URL("worker.js", base), { type: "module" });
const taps = new Taps();
const metronome = new Metronome(drawLights);

let session = START;
let settings = read(location.hash, defaults(navigator.languages ?? []));
let microphone = null; // {ticket, context, stream, node, heard (samples), began (when the first one sounded)}
let parts = null; // a file that is unpacked part by part, as the worker asks for it
let announced = "";

const t = (key, values) => translate(settings.lang, key, values);
const number = (x) => new Intl.NumberFormat(settings.lang, { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(x);
const percent = (x) => new Intl.NumberFormat(settings.lang, { style: "percent" }).format(x);

function words({ meter, second }) {
  if (meter === null) return t("none");
  if (second) return t("against", { meter, second });
  return /^\d+$/.test(meter) ? t("inBar", { meter }) : meter;
}

// ---- what happens

function happen(event) {
  const before = session;
  session = step(session, event);
  if (session === before) return;
  if (before.ticket !== session.ticket) worker.postMessage({ order: "stop", ticket: session.ticket });
  if (microphone && (!wantsMicrophone(session) || microphone.ticket !== session.ticket)) closeMicrophone();
  if (before.mode === "listening" && session.mode === "finishing") {
    worker.postMessage({ order: "end", ticket: session.ticket });
  }
  draw();
}

worker.addEventListener("message", ({ data }) => {
  if (data.kind === "want") return sendPart(data);
  const { kind, ticket, ...values } = data;
  const own = kind === "loading" || kind === "ready" || (kind === "failed" && !usable(session));
  happen({ type: kind, ...(own ? {} : { ticket }), ...values });
  if (kind !== "ready") return undefined;
  settings = read(location.hash, defaults(navigator.languages ?? [], data.about.stream));
  return drawWords();
});
worker.addEventListener("error", (event) => {
  happen({ type: "failed", key: "fault", values: { text: event.message ?? "worker" } });
});

async function listen() {
  happen({ type: "listen" });
  const { ticket } = session;
  clearPlayer();
  if (!navigator.mediaDevices?.getUserMedia) return happen({ type: "failed", ticket, key: "noMicrophone" });
  const opened = { ticket };
  try {
    // processing for speech would take the rhythm out of music
    const wanted = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    opened.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    if (session.ticket !== ticket) return close(opened);
    opened.context = new AudioContext();
    await opened.context.audioWorklet.addModule(new URL("capture.js", base));
    await running(opened.context);
  } catch (error) {
    close(opened);
    const denied = error.name === "NotAllowedError";
    return happen({ type: "failed", ticket, key: error.key ?? (denied ? "denied" : "noMicrophone") });
  }
  if (session.ticket !== ticket) return close(opened);
  const { context, stream } = opened;
  const stretch = { window: Number(settings.window), duration: Number(settings.calm) };
  worker.postMessage({ order: "live", ticket, rate: context.sampleRate, settings: stretch });
  opened.node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  Object.assign(opened, { heard: 0, began: Infinity });
  opened.node.port.onmessage = ({ data }) => {
    opened.heard += data.length;
    // the block that was handed on soonest tells best; a little later each time, as no two clocks agree
    opened.began = Math.min(opened.began + 1e-5, performance.now() / 1000 - opened.heard / context.sampleRate);
    if (session.ticket === ticket && session.mode === "listening") {
      worker.postMessage({ order: "audio", ticket, samples: data }, [data.buffer]);
    }
  };
  context.createMediaStreamSource(stream).connect(opened.node);
  stream.getAudioTracks()[0].addEventListener("ended", () => happen({ type: "stop", ticket }));
  microphone = opened;
  return happen({ type: "granted", ticket });
}

// Firefox waits for ever where there is nothing to play sound on, though nothing is played here.
async function running(context) {
  await Promise.race([context.resume(), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
  if (context.state !== "running") throw new HearingError("noSound");
}

function close({ stream, context, node }) {
  node?.disconnect();
  stream?.getTracks().forEach((track) => track.stop());
  context?.close();
}

function closeMicrophone() {
  close(microphone);
  microphone = null;
}

async function openFile(file) {
  happen({ type: "open", name: file.name });
  if (session.mode !== "reading" || session.name !== file.name) return;
  const { ticket } = session;
  const player = $("player");
  clearPlayer();
  parts = null;
  player.src = URL.createObjectURL(file);
  try {
    if (await openWave(file)) return worker.postMessage({ order: "wave", ticket, file });
    const long = await openMpeg(file);
    if (long) return readParts(long, ticket);
    const { rate, samples } = await decode(file, await durationOf(player));
    if (session.ticket !== ticket) return;
    worker.postMessage({ order: "samples", ticket, rate, samples }, [samples.buffer]);
  } catch (error) {
    fail(ticket, error);
  }
}

function readParts(source, ticket) {
  if (session.ticket !== ticket) return;
  parts = source;
  worker.postMessage({ order: "parts", ticket, rate: source.rate, samples: source.samples });
}

async function sendPart({ ticket, begin, end }) {
  if (session.ticket !== ticket) return;
  try {
    const samples = await parts.read(begin, end);
    worker.postMessage({ order: "block", ticket, samples }, [samples.buffer]);
  } catch (error) {
    fail(ticket, error);
  }
}

function fail(ticket, error) {
  const known = error.key ? error : { key: "fault", values: { text: String(error) } };
  happen({ type: "failed", ticket, key: known.key, values: known.values });
}

// Seconds that a file plays, as far as its header tells: 0 when it does not.
function durationOf(player) {
  return new Promise((resolve) => {
    const told = () => resolve(Number.isFinite(player.duration) ? player.duration : 0);
    if (player.readyState >= 1 || player.error) return told();
    player.addEventListener("loadedmetadata", told, { once: true });
    setTimeout(told, 5000); // a browser that saves power does not look into the file
    return player.addEventListener("error", told, { once: true });
  });
}

function clearPlayer() {
  const player = $("player");
  if (player.src) URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
  player.load();
}

// ---- what is seen

function statusText() {
  const { mode, state, name } = session;
  const time = clock(state?.heard ?? 0), total = clock(state?.seconds ?? 0);
  if (mode === "loading") return t("loading", { percent: percent(session.share) });
  if (mode === "asking") return t("asking");
  if (mode === "listening" && !state?.answer) return t("first", { seconds: session.about.stream.minimum });
  if (mode === "listening" || mode === "finishing") return t("listening", { time });
  if (mode === "reading") return state ? t("reading", { name, time, total }) : t("opening", { name });
  if (mode === "done") return session.source === "file" && state.done ? t("heardAll", { name, total }) : t("stopped", { time });
  return mode === "ready" ? t("ready") : "";
}

function draw() {
  const { mode, state, problem } = session;
  $("listen").disabled = $("open").disabled = !usable(session);
  $("listen").hidden = wantsMicrophone(session);
  $("stop").hidden = !busy(session) || mode === "finishing";
  $("status").textContent = statusText();
  const share = mode === "loading" ? session.share : mode === "reading" ? (state?.heard ?? 0) / (state?.seconds || 1) : 0;
  $("progress").value = share;
  $("progress").className = mode === "loading" || mode === "reading" ? "" : "idle";
  $("problem").hidden = !problem;
  if (problem) $("problem").textContent = t(problem.key, { name: session.name, ...problem.values });
  drawAnswer();
  drawCourse();
  drawBeats();
  drawTaps();
}

function drawAnswer() {
  const view = shown(session);
  $("belief").hidden = !usable(session);
  const answer = view?.answer;
  const at = answer ? session.about.classes.indexOf(answer.meter) : -1;
  $("figure").textContent = answer ? (answer.meter ?? "–") : "·";
  $("figure").className = `figure ${at >= 0 ? `m${at % 6}` : ""}`;
  $("words").textContent = answer ? words(answer) : "";
  $("sureness").textContent = answer?.how ? t(answer.how) : "";
  $("sureness").className = `badge ${answer?.how ?? ""}`;
  const reach = session.source !== "file" ? "" : `, ${t(view?.whole ? "ofAll" : "soFar")}`;
  $("value").textContent = answer ? `${number(answer.probability)}${reach}` : "";
  if (usable(session)) {
    const empty = session.about.classes.map((name) => ({ name, value: 0 }));
    drawBars($("bars"), view?.bars ?? empty, answer?.meter, (name) => name ?? t("noneShort"), number);
    if (!view) for (const row of $("bars").children) row.className = "";
  }
  // said aloud only when the answer changes, not every second
  const said = answer && (session.source === "live" || view.whole) ? [words(answer), answer.how && t(answer.how)].filter(Boolean).join(", ") : "";
  if (said !== announced) $("announce").textContent = announced = said;
}

function drawCourse() {
  const { state } = session, segments = state?.segments ?? [], player = $("player");
  $("course").hidden = !segments.length;
  if (!segments.length) return;
  const file = session.source === "file";
  player.hidden = !file || !player.src || player.error !== null;
  const seconds = file ? state.seconds : Math.max(30, state.heard);
  const at = player.hidden ? null : player.currentTime;
  $("timeline").classList.toggle("seekable", !player.hidden);
  drawTimeline($("timeline"), { segments, seconds, at, classes: session.about.classes, words, short: t("noneShort") });
  const list = $("segments");
  const rows = segments.map((s) => {
    const row = element("li", {}, t("segment", { from: clock(s.start), to: clock(s.end), words: words(s) }));
    if (at !== null && at >= s.start && at < s.end) row.className = "current";
    return row;
  });
  list.replaceChildren(...rows);
}

function drawBeats() {
  const beats = session.state?.beats, live = session.source === "live", player = $("player");
  $("beats").hidden = !session.about?.beats || !session.source;
  if (session.mode === "listening" && microphone && beats) {
    metronome.follow(beats, () => performance.now() / 1000 - microphone.began, true);
  } else if (!live && beats && session.mode === "done" && !player.paused) {
    metronome.follow(beats, () => player.currentTime, false);
  } else metronome.stop();
  const bpm = beats && tempoOf(beats);
  const waits = live && session.mode === "listening" ? t("beatsSoon", { seconds: 5 }) : "";
  const hint = live || player.hidden || !player.paused ? "" : ` ${t("beatsFile")}`;
  const text = bpm ? `${t("tapTempo", { bpm: Math.round(bpm) })}.${hint}` : beats ? t("beatsNone") : waits;
  if ($("pulse").textContent !== text) $("pulse").textContent = text;
}

function drawLights(beat) {
  const size = beat?.size ?? 0;
  const lit = (i) => `${i === beat.place ? "lit" : ""}${i === 1 ? " one" : ""}`;
  $("lights").replaceChildren(...Array.from({ length: size }, (_, i) => element("span", { class: lit(i + 1) }, String(i + 1))));
}

function drawTaps() {
  const meter = Number(shown(session)?.answer.meter ?? NaN), place = taps.place(meter);
  const dots = Number.isFinite(meter) && taps.taps.length ? Array.from({ length: meter }, (_, i) => i + 1) : [];
  const lit = (i) => `${i === place ? "lit" : ""}${i === 1 ? " one" : ""}`;
  $("places").replaceChildren(...dots.map((i) => element("span", { class: lit(i) }, String(i))));
  const said = [];
  if (taps.tempo) said.push(t("tapTempo", { bpm: Math.round(taps.tempo) }));
  const { bar } = taps, agrees = taps.agrees(meter);
  if (bar !== null) said.push(t(agrees === null ? "tapAlone" : agrees ? "tapAgrees" : "tapDiffers", { bar, meter }));
  const text = said.join(". ").replace(/\.\./g, ".");
  if ($("tapped").textContent !== text) $("tapped").textContent = text;
}

function drawWords() {
  document.documentElement.lang = settings.lang;
  const dark = settings.theme === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : settings.theme === "dark";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  for (const place of document.querySelectorAll("[data-text]")) place.textContent = t(place.dataset.text);
  $("player").setAttribute("aria-label", t("play"));
  if (usable(session)) {
    const { model, classes, thresholds } = session.about;
    const key = (thresholds.sure ?? null) === null ? "aboutPlain" : "about";
    $("about").textContent = t(key, { model, classes: classes.join(" ") });
  }
  drawChoices();
  draw();
}

function drawChoices() {
  const label = { lang: (c) => NAMES[c], theme: (c) => t(`theme.${c}`) };
  const seconds = (value) => t("secondsUnit", { value });
  const focused = document.activeElement?.id;
  const made = Object.entries(CHOICES).map(([name, choices]) => {
    const options = choices.map((c) => element("option", { value: c }, (label[name] ?? seconds)(c)));
    const select = element("select", { id: `choose-${name}` }, ...options);
    select.value = settings[name];
    select.addEventListener("change", () => change(name, select.value));
    return element("label", {}, t(name), select);
  });
  $("choices").replaceChildren(...made);
  if (focused?.startsWith("choose-")) $(focused).focus();
}

function change(name, value) {
  settings = { ...settings, [name]: value };
  history.replaceState(null, "", write(settings));
  $("link").textContent = "";
  drawWords();
}

async function share() {
  const link = new URL(write(settings), location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    $("link").textContent = t("shared", { link });
  } catch {
    $("link").textContent = t("linkIs", { link }); // no clipboard here: it can be copied by hand
  }
}

// ---- hands and keys

function tap(one) {
  taps.tap(performance.now() / 1000, one);
  drawTaps();
}

$("listen").addEventListener("click", listen);
$("stop").addEventListener("click", () => {
  happen({ type: "stop" });
  $(wantsMicrophone(session) ? "stop" : "listen").focus();
});
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file) openFile(file);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file && usable(session)) openFile(file);
});
$("tap").addEventListener("click", () => tap(false));
$("tapOne").addEventListener("click", () => tap(true));
$("tapClear").addEventListener("click", () => {
  taps.clear();
  drawTaps();
});
addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && busy(session)) return $("stop").click();
  if (!$("tapping").open || event.target.closest("select, input, audio")) return;
  if (event.key === "t" || event.key === "T") tap(false);
  if (event.key === "1") tap(true);
});
$("share").addEventListener("click", share);
$("timeline").addEventListener("click", (event) => {
  if (!$("timeline").classList.contains("seekable")) return;
  const box = $("timeline").getBoundingClientRect();
  $("player").currentTime = ((event.clientX - box.left) / box.width) * session.state.seconds;
});
$("click").addEventListener("change", () => {
  metronome.sounds = $("click").checked;
});
for (const event of ["play", "pause", "ended"]) $("player").addEventListener(event, drawBeats);
$("player").addEventListener("timeupdate", drawCourse);
$("player").addEventListener("error", drawCourse);
addEventListener("resize", drawCourse);
addEventListener("hashchange", () => {
  settings = read(location.hash, settings);
  drawWords();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawWords);

drawWords();
worker.postMessage({ order: "load", base });

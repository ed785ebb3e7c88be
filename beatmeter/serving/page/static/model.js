// An exported model in onnxruntime-web: one thread, CPU, from files of this folder alone.

import { HearingError } from "./states.js";

const hex = (buffer) => Array.from(new Uint8Array(buffer), (x) => x.toString(16).padStart(2, "0")).join("");

async function fetchBytes(url, told = () => {}) {
  const response = await fetch(url);
  if (!response.ok) throw new HearingError("missingFile", { file: url.pathname.split("/").pop() });
  const parts = [];
  const reader = response.body.getReader();
  let count = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    count += value.length;
    told(count);
  }
  const all = new Uint8Array(count);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// What was packed to travel light.
async function unpacked(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const json = async (url) => JSON.parse(new TextDecoder().decode(await fetchBytes(url)));

// Both graphs of a folder, checked against its model.json. Throws HearingError.
async function fetchGraphs(base, folder, progress) {
  const about = await json(new URL(`${folder}/model.json`, base));
  const graphs = {};
  for (const name of ["front", "back"]) {
    const { file, sha256 } = about.graphs[name];
    const data = await fetchBytes(new URL(`${folder}/${file}`, base), progress(`${folder}/${name}`));
    if (globalThis.crypto?.subtle) { // else not https and not localhost: no hashes here
      const found = hex(await crypto.subtle.digest("SHA-256", data));
      if (found !== sha256) throw new HearingError("wrongFile", { file });
    }
    graphs[name] = data;
  }
  return { about, graphs };
}

// The model of meter; `beats` of it is the model of beats beside it, or null. Throws HearingError when a file
// is missing or is not the one that model.json names.
export async function loadModel(base, told = () => {}) {
  const { beats, bytes: total } = await json(new URL("page.json", base));
  const done = {};
  const progress = (name) => (count) => {
    done[name] = count;
    told(Math.min(1, Object.values(done).reduce((a, b) => a + b, 0) / total));
  };
  const ort = await import(new URL("runtime/ort.mjs", base));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.logLevel = "error";
  const [binary, meter, beat] = await Promise.all([
    fetchBytes(new URL("runtime/ort.wasm.packed", base), progress("runtime")).then(unpacked),
    fetchGraphs(base, "model", progress),
    beats ? fetchGraphs(base, "beats", progress) : null,
  ]);
  ort.env.wasm.wasmBinary = binary;
  const errors = 3; // of its levels: it warns of parts of a graph that it does not compute in advance
  const options = { executionProviders: ["wasm"], enableCpuMemArena: false, logSeverityLevel: errors };
  const sessions = async ({ about, graphs }) => ({
    about,
    front: await ort.InferenceSession.create(graphs.front, options),
    back: await ort.InferenceSession.create(graphs.back, options),
  });
  const model = wrap(ort, await sessions(meter));
  return { ...model, beats: beat && wrapBeats(ort, await sessions(beat)) };
}

async function statesOf(ort, front, samples) {
  const { states } = await front.run({ audio: new ort.Tensor("float32", samples, [1, samples.length]) });
  return { data: states.data, frames: states.dims[2] };
}

function wrap(ort, { about, front, back }) {
  const { layers, dim } = about.states;
  const silent = new Float32Array(about.rows);
  return {
    about,
    front: (samples) => statesOf(ort, front, samples),
    async back(states, frames, first, rows, seen) {
      const out = await back.run({
        states: new ort.Tensor("float32", states, [layers, frames, dim]),
        first: new ort.Tensor("int64", BigInt64Array.of(BigInt(first)), [1]),
        rows: new ort.Tensor("float32", rows ?? silent, [about.rows]),
        frames: new ort.Tensor("float32", Float32Array.of(seen), [1]),
      });
      return {
        scores: out.scores.data,
        calibrated: out.calibrated.data,
        heard: out.heard.data[0],
        rows: out.rows_out.data,
        seen: out.frames_out.data[0],
      };
    },
  };
}

function wrapBeats(ort, { about, front, back }) {
  return {
    about,
    front: (samples) => statesOf(ort, front, samples),
    async curves(rows, count) {
      const { curves } = await back.run({ rows: new ort.Tensor("float32", rows, [count, about.states.dim]) });
      return curves.data;
    },
  };
}

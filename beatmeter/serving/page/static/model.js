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

// Throws HearingError when a file is missing or is not the one that model.json names.
export async function loadModel(base, told = () => {}) {
  const about = JSON.parse(new TextDecoder().decode(await fetchBytes(new URL("model/model.json", base))));
  const bytes = { runtime: about.graphs.front.bytes + about.graphs.back.bytes + 14e6, done: {} };
  const progress = (name) => (count) => {
    bytes.done[name] = count;
    const sum = Object.values(bytes.done).reduce((a, b) => a + b, 0);
    told(Math.min(1, sum / bytes.runtime));
  };
  const ort = await import(new URL("runtime/ort.mjs", base));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.logLevel = "error";
  const [binary, front, back] = await Promise.all([
    fetchBytes(new URL("runtime/ort.wasm", base), progress("runtime")),
    ...["front", "back"].map((name) =>
      fetchBytes(new URL(`model/${about.graphs[name].file}`, base), progress(name)),
    ),
  ]);
  for (const [name, data] of [["front", front], ["back", back]]) {
    if (!globalThis.crypto?.subtle) break; // not https and not localhost: no hashes here
    const found = hex(await crypto.subtle.digest("SHA-256", data));
    if (found !== about.graphs[name].sha256) throw new HearingError("wrongFile", { file: about.graphs[name].file });
  }
  ort.env.wasm.wasmBinary = binary;
  const errors = 3; // of its levels: it warns of parts of a graph that it does not compute in advance
  const options = { executionProviders: ["wasm"], enableCpuMemArena: false, logSeverityLevel: errors };
  const graphs = {
    front: await ort.InferenceSession.create(front, options),
    back: await ort.InferenceSession.create(back, options),
  };
  return wrap(ort, about, graphs);
}

function wrap(ort, about, { front, back }) {
  const { layers, dim } = about.states;
  const silent = new Float32Array(about.rows);
  return {
    about,
    async front(samples) {
      const audio = new ort.Tensor("float32", samples, [1, samples.length]);
      const { states } = await front.run({ audio });
      return { data: states.data, frames: states.dims[2] };
    },
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

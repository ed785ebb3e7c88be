// Stands for onnxruntime-web in tests of the page: a model whose states are the loudness of every frame, and
// which hears a meter in how loud it is. Graphs are the words "front" and "back". That of beats, "back of
// beats", hears one in every loud row, and a downbeat in every very loud one.

export const env = { wasm: {} };

export class Tensor {
  constructor(type, data, dims) {
    Object.assign(this, { type, data, dims });
  }
}

const float = (values, dims) => new Tensor("float32", Float32Array.from(values), dims);

const graphs = {
  front({ audio }) {
    const frames = Math.floor((audio.dims[1] - 400) / 320) + 1, found = [];
    for (let f = 0; f < frames; f++) {
      let sum = 0;
      for (let i = 0; i < 320; i++) sum += Math.abs(audio.data[320 * f + i]);
      found.push(sum / 320);
    }
    return { states: float(found, [1, 1, frames, 1]) };
  },
  back({ states, first, rows, frames }) {
    if (first.type !== "int64" || states.dims[1] !== states.data.length) throw new Error("wrong inputs");
    const n = states.data.length, before = frames.data[0];
    const mean = (rows.data[0] * before + states.data.reduce((a, b) => a + b, 0)) / (before + n);
    const k = [0.12, 0.24, 0.4, 1].findIndex((limit) => mean < limit);
    const scores = [0, 1, 2, 3].map((c) => (c === k ? 0.96 : 0.02));
    return {
      scores: float(scores, [4]),
      calibrated: float(scores, [4]),
      heard: float([mean < 0.005 ? 0.02 : 0.99], [1]),
      rows_out: float([mean], [1]),
      frames_out: float([before + n], [1]),
    };
  },
  "back of beats"({ rows }) {
    const chance = (row) => [row > 0.02 ? 0.95 : 0.01, row > 0.12 ? 0.95 : 0.01];
    return { curves: float(Array.from(rows.data).flatMap(chance), [rows.data.length, 2]) };
  },
};

export const InferenceSession = {
  async create(bytes) {
    return { run: async (inputs) => graphs[new TextDecoder().decode(bytes)](inputs) };
  },
};

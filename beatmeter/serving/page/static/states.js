// States of consecutive chunks, windows of them, and what a model's answer for a window means.
//
// A model is {about (model.json), front(samples) -> {data, frames}, back(states, frames, first, rows, seen)
// -> {scores, calibrated, heard, rows, seen}}, both asynchronous.

import { round } from "./belief.js";

export class HearingError extends Error {
  constructor(key, values = {}) {
    super(key);
    Object.assign(this, { key, values });
  }
}

// States of consecutive chunks, (layer, frame, dim) each.
export class Held {
  constructor(about) {
    this.layers = about.states.layers;
    this.dim = about.states.dim;
    this.parts = []; // {at, frames, skip, data}: `at` is the frame of the track where it counts from
    this.end = this.begin = 0;
  }

  append(data, frames, skip = 0) {
    this.parts.push({ at: this.end, frames, skip, data });
    this.end += frames - skip;
  }

  trim(end) { // let go of what is behind; of one layer, whose frames follow each other
    while (this.parts.length && this.parts.at(-1).at >= end) this.parts.pop();
    const last = this.parts.at(-1);
    if (last) last.frames = Math.min(last.frames, end - last.at + last.skip);
    this.end = Math.min(this.end, end);
  }

  pass(frames) { // a chunk that is left out
    this.parts = [];
    this.begin = this.end += frames;
  }

  forget(before) {
    while (this.parts.length && this.parts[0].at + this.parts[0].frames - this.parts[0].skip <= before) {
      this.begin = this.parts[0].at + this.parts[0].frames - this.parts[0].skip;
      this.parts.shift();
    }
  }

  // (layer, b - a, dim) of the frames a to b of the track; `more` is a part behind the last one.
  slice(a, b, more = null) {
    const out = new Float32Array(this.layers * (b - a) * this.dim);
    for (const part of more ? [...this.parts, more] : this.parts) {
      const first = Math.max(a, part.at), last = Math.min(b, part.at + part.frames - part.skip);
      if (first < last) this.copy(out, b - a, first - a, part, first - part.at + part.skip, last - first);
    }
    return out;
  }

  copy(out, total, to, part, from, count) {
    for (let l = 0; l < this.layers; l++) {
      const start = (l * part.frames + from) * this.dim;
      out.set(part.data.subarray(start, start + count * this.dim), (l * total + to) * this.dim);
    }
  }

  get bytes() {
    return this.parts.reduce((sum, part) => sum + part.data.byteLength, 0);
  }
}

// What a window or a file says, in the words of `beatmeter predict`.
export function judge(about, out, seconds) {
  const { presence, sure, shortest_sure: shortest, second } = about.thresholds;
  const scores = Array.from(out.calibrated);
  const tells = Boolean(about.calibration?.presence); // whether music is told from other sound
  const heard = tells ? out.heard : null;
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b);
  const there = heard === null || heard >= presence;
  const [first, next] = order;
  const certain = there && tells && sure !== null && seconds >= shortest && scores[first] >= sure;
  const against = there && second && order.length > 1 && scores[next] > second[about.classes[next]];
  return {
    meter: there ? about.classes[first] : null,
    second: against ? about.classes[next] : null,
    how: !there ? "" : certain ? "sure" : scores[first] >= 0.5 ? "likely" : "guess",
    scores,
    heard,
    probability: there ? scores[first] : 1 - heard,
    seconds,
  };
}

export const thresholdsOf = (about) => about.thresholds.second && about.classes.map((c) => about.thresholds.second[c]);

const windowAt = (about, held, a, b) => { // frames of the seconds a to b
  const rate = about.frame.rate;
  const last = Math.min(round(b * rate), held.end);
  return [Math.min(Math.max(held.begin, last - round((b - a) * rate)), last - 1), last];
};

export async function hearWindow(model, held, a, b, more = null) {
  const about = model.about;
  const [first, last] = more ? [Math.max(held.begin, Math.min(a, b - 1)), b] : windowAt(about, held, a, b);
  const states = held.slice(first, last, more);
  return model.back(states, last - first, first % about.frame.per_chunk, null, 0);
}


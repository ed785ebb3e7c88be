// Beats while sound comes, and of whole files: chunks that share frames, their curves, and the bars in them.

import { findBars } from "./bars.js";
import { Held } from "./states.js";

const LAST = 14; // seconds of a microphone whose beats are found again and again
const CONTEXT = 10.5; // seconds of frames around a row that the head looks at
const STRETCH = 60; // seconds of a file whose curves are made at a time

// A model of beats is {about, front(samples) -> {data, frames}, curves(rows, count) -> Float32Array
// (row, 2)}.
class Chunks {
  constructor(model) {
    Object.assign(this, { model, about: model.about, held: new Held(model.about), buffer: new Float32Array(0) });
    this.begin = 0; // sample with which the buffer begins
    this.cut = 0; // chunks that are encoded
  }

  push(block) {
    this.buffer = joined([this.buffer, block]);
  }

  get seen() {
    return this.begin + this.buffer.length;
  }

  // Encode the chunk that begins at sample `start`; where it shares frames with the one before, each has its half.
  async encode(start, length) {
    const { chunk, frame, row } = this.about, at = Math.round(start / frame.hop);
    const { data, frames } = await this.model.front(this.buffer.slice(start - this.begin, start - this.begin + length));
    const seam = this.cut ? Math.floor((this.last + frame.per_chunk + at) / 2 / row.frames) : 0;
    this.held.trim(seam);
    const skip = Math.max(0, seam * row.frames - at), rows = this.rows(data, frames, skip);
    this.held.append(rows, rows.length / this.about.states.dim);
    this.last = at;
    this.cut += 1;
    const keep = Math.min(start + chunk.hop, this.seen - chunk.length - chunk.grid) - this.begin;
    if (keep > 0) {
      this.buffer = this.buffer.slice(keep);
      this.begin += keep;
    }
  }

  // Means over every few frames from `skip` on; the last over what is left.
  rows(data, frames, skip) {
    const { dim } = this.about.states, { frames: step } = this.about.row;
    const count = Math.ceil((frames - skip) / step), found = new Float32Array(count * dim);
    for (let r = 0; r < count; r++) {
      const first = skip + r * step, last = Math.min(frames, first + step);
      for (let d = 0; d < dim; d++) {
        let sum = 0;
        for (let f = first; f < last; f++) sum += data[f * dim + d];
        found[r * dim + d] = sum / (last - first);
      }
    }
    return found;
  }

  // The next whole chunk, when there is one; false when there is none.
  async next() {
    const { chunk } = this.about, start = this.cut * chunk.hop;
    if (start + chunk.length > this.seen) return false;
    await this.encode(start, chunk.length);
    return true;
  }

  // The curves of the rows from `a` to `b`, by what is held around them.
  async curves(a, b) {
    const around = Math.ceil(CONTEXT * this.about.row.rate);
    const from = Math.max(this.held.begin, a - around), to = Math.min(this.held.end, b + around);
    const all = await this.model.curves(this.held.slice(from, to), to - from);
    const curve = (k) => Float32Array.from({ length: b - a }, (_, i) => all[2 * (a - from + i) + k]);
    return { beat: curve(0), down: curve(1) };
  }

  time(row) {
    return this.about.row.first + row / this.about.row.rate;
  }

  get bytes() {
    return this.held.bytes + this.buffer.byteLength;
  }
}

// A microphone: with every chunk the beats of the last seconds are found anew. `found` is what is known of
// them, {times, places} in seconds of the stream.
export class LiveBeats {
  constructor(model) {
    Object.assign(this, { model, chunks: new Chunks(model), base: 0, found: null });
  }

  push(block) {
    this.chunks.push(block);
  }

  // True when there are beats anew; `prior` as of `priorOf`.
  async advance(prior) {
    const { chunk, row, pointer, sample_rate: rate } = this.model.about;
    if (this.chunks.seen - this.chunks.cut * chunk.hop > 3 * chunk.length) this.restart();
    const { chunks } = this;
    let news = false;
    while (await chunks.next()) news = true;
    if (!news) return false;
    const last = chunks.held.end, first = Math.max(chunks.held.begin, last - LAST * row.rate);
    const { beat, down } = await chunks.curves(first, last);
    this.found = findBars(beat, down, row.rate, this.base / rate + chunks.time(first), prior, pointer);
    chunks.held.forget(Math.floor(last - (LAST + CONTEXT) * row.rate));
    return true;
  }

  // Too far behind: go on with the newest sound.
  restart() {
    const { chunks } = this, { length } = this.model.about.chunk;
    const newest = chunks.buffer.slice(-length);
    this.base += chunks.seen - newest.length;
    this.chunks = new Chunks(this.model);
    this.chunks.push(newest);
  }

  get bytes() {
    return this.chunks.bytes;
  }
}

// A file of `samples` samples at the model's rate.
export class FileBeats {
  constructor(model, samples) {
    Object.assign(this, { chunks: new Chunks(model), samples, done: 0, beat: [], down: [] });
  }

  async push(block) {
    this.chunks.push(block);
    while (await this.chunks.next()) await this.read(false);
  }

  // Curves of what has enough around it.
  async read(last) {
    const { chunks } = this, { rate } = chunks.about.row;
    const stretch = STRETCH * rate, around = Math.ceil(CONTEXT * rate);
    while (this.done < chunks.held.end && (last || chunks.held.end - this.done >= stretch + 2 * around)) {
      const end = Math.min(this.done + stretch, chunks.held.end);
      const { beat, down } = await chunks.curves(this.done, end);
      this.beat.push(beat);
      this.down.push(down);
      this.done = end;
      chunks.held.forget(end - around);
    }
  }

  // {times, places, meter} of all of it.
  async finish(prior) {
    const { chunks, samples } = this, { chunk, row, pointer } = chunks.about;
    const start = samples - chunk.length, over = start - (chunks.cut - 1) * chunk.hop;
    if (!chunks.cut) await chunks.encode(0, samples);
    else if (over > chunk.tail) await chunks.encode(start - (start % chunk.grid), chunk.length);
    await this.read(true);
    return findBars(joined(this.beat), joined(this.down), row.rate, row.first, prior, pointer);
  }

  get bytes() {
    return this.chunks.bytes;
  }
}

function joined(parts) {
  const all = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// ---- what is seen of them

// Beats that go on as the last ones did, up to `until` seconds: [{time, place}] after the last one found.
export function ahead(found, until) {
  const { times, places } = found, n = times.length;
  if (n < 3) return [];
  const one = places.lastIndexOf(1, n - 2), start = one > 0 ? places.lastIndexOf(1, one - 1) : -1;
  const bar = start >= 0 ? times.slice(start, one + 1) : times.slice(-3); // the last whole bar, else two beats
  const steps = bar.slice(1).map((t, i) => t - bar[i]), size = steps.length;
  const made = [];
  let time = times[n - 1], place = places[n - 1];
  while (made.length < 64) {
    time += steps[(start >= 0 ? place - 1 : 0) % size];
    place = start >= 0 ? (place % size) + 1 : place + 1;
    if (time > until) break;
    made.push({ time, place });
  }
  return made;
}

// {place, size, time} of the beat that sounds at `now`, null before the first one; `size` is how many its bar has.
export function beatAt(found, now) {
  const { times, places } = found;
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= now) low = middle + 1;
    else high = middle;
  }
  if (!low) return null;
  const one = places.indexOf(1, low), from = low - 1;
  const size = one > 0 ? places[one - 1] : Math.max(...places.slice(Math.max(0, from - 12)));
  return { place: places[from], size: Math.max(size, places[from]), time: times[from] };
}

// Beats a minute, by the bars where there are some; null with fewer than two beats.
export function tempoOf({ times, places }) {
  const ones = places.map((p, i) => (p === 1 ? i : -1)).filter((i) => i >= 0);
  const middle = (values) => {
    const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };
  if (ones.length > 2) return middle(ones.slice(1).map((i, k) => (60 * (i - ones[k])) / (times[i] - times[ones[k]])));
  return times.length > 1 ? 60 / middle(times.slice(1).map((t, i) => t - times[i])) : null;
}

// From audio at the model's rate to answers: a whole file, or sound that goes on. Chunks, frames and windows
// lie where beatmeter's Predictor and MeterStream lay them; every whole chunk is encoded once.

import { argmax, believe, round, Timeline } from "./belief.js";
import { Held, HearingError, hearWindow, judge, thresholdsOf } from "./states.js";

export const OVERVIEW = { window: 10, hop: 2.5 }; // seconds: the windows of the timeline of a file
const LATE = 2; // seconds of sound that may wait before answers are left out

// A whole file of so many samples at the model's rate. `state` is what is known so far.
export class FileHearing {
  constructor(model, samples) {
    const { chunk } = model.about;
    if (samples < chunk.shortest) throw new HearingError("tooShort");
    this.model = model;
    this.samples = samples;
    this.length = Math.min(samples, chunk.length);
    this.starts = [0];
    while (this.starts.at(-1) + chunk.hop + chunk.length <= samples) {
      this.starts.push(this.starts.at(-1) + chunk.hop);
    }
    if (samples - this.starts.at(-1) - chunk.length > chunk.tail) this.starts.push(samples - chunk.length);
    const count = Math.max(1, Math.floor(this.starts.length / model.about.window.chunks));
    this.edges = Array.from({ length: count + 1 }, (_, i) => Math.floor((i * this.starts.length) / count));
    this.held = new Held(model.about);
    this.whole = { parts: [], rows: null, seen: 0, done: 0 };
    this.timeline = new Timeline(model.about.classes, thresholdsOf(model.about), model.about.stream.duration);
    this.buffer = new Float32Array(0);
    this.begin = 0; // the sample of the track where the buffer begins
    this.cut = 0;
    this.answer = null;
    this.out = null;
    this.loud = 0;
  }

  get seconds() {
    return this.samples / this.model.about.sample_rate;
  }

  // The next samples; all that they complete is heard.
  async push(block) {
    const joined = new Float32Array(this.buffer.length + block.length);
    joined.set(this.buffer);
    joined.set(block, this.buffer.length);
    this.buffer = joined;
    for (const x of block) if (Math.abs(x) > this.loud) this.loud = Math.abs(x);
    const upto = () => this.begin + this.buffer.length;
    while (this.cut < this.starts.length && this.starts[this.cut] + this.length <= upto()) {
      await this.encode();
    }
  }

  async encode() {
    const { about } = this.model;
    const start = this.starts[this.cut];
    const samples = this.buffer.slice(start - this.begin, start - this.begin + this.length);
    const { data, frames } = await this.model.front(samples);
    const over = this.cut ? this.starts[this.cut - 1] + frames * about.frame.hop - start : 0;
    const skip = Math.max(0, round(over / about.frame.hop));
    this.held.append(data, frames, skip);
    this.whole.parts.push({ frames, skip, data });
    this.cut += 1;
    const next = Math.min(this.starts[this.cut] ?? this.samples, this.samples - this.length);
    const drop = Math.max(0, Math.min(next - this.begin, this.buffer.length));
    this.buffer = this.buffer.slice(drop);
    this.begin += drop;
    if (this.cut === this.edges[this.whole.done + 1]) await this.hearWhole();
    await this.hearOverview(false);
  }

  // One more of the windows that make the answer for the file.
  async hearWhole() {
    const held = new Held(this.model.about);
    this.whole.parts.forEach((part, i) => held.append(part.data, part.frames, i ? part.skip : 0));
    const total = held.end, states = new Float32Array(held.layers * total * held.dim);
    for (const part of held.parts) {
      held.copy(states, total, part.at, part, part.skip, part.frames - part.skip);
    }
    const out = await this.model.back(states, total, 0, this.whole.rows, this.whole.seen);
    this.whole = { parts: [], rows: out.rows, seen: out.seen, done: this.whole.done + 1 };
    const rate = this.model.about.sample_rate;
    const heard = Math.min(this.samples, this.starts[this.cut - 1] + this.length) / rate;
    this.answer = judge(this.model.about, out, heard);
    this.out = out;
  }

  async hearOverview(last) {
    const { window, hop } = OVERVIEW;
    const covered = last ? this.seconds : this.held.end / this.model.about.frame.rate;
    const final = this.seconds - window;
    const add = async (a, b) => {
      const out = await hearWindow(this.model, this.held, a, b);
      const { scores, heard } = judge(this.model.about, out, b - a);
      this.timeline.add({ start: a, end: b, scores, heard });
    };
    if (final <= 1e-6 * hop) return last ? add(0, this.seconds) : undefined;
    let start = this.timeline.windows.length * hop;
    while (start + window <= covered + 1e-9 && start < final - 1e-6 * hop) {
      await add(start, start + window);
      start = this.timeline.windows.length * hop;
    }
    if (last) await add(final, this.seconds);
    const needed = Math.max(0, Math.min(start, covered - window));
    return this.held.forget(Math.floor(needed * this.model.about.frame.rate));
  }

  // There is no more: the answer of all of it. Throws HearingError when the file is silent or shorter than
  // was said.
  async finish() {
    if (this.cut < this.starts.length) throw new HearingError("cutShort");
    if (this.loud === 0) throw new HearingError("silent");
    await this.hearOverview(true);
    return this.state(true);
  }

  state(done = false) {
    const rate = this.model.about.sample_rate;
    const heard = this.cut ? Math.min(this.samples, this.starts[this.cut - 1] + this.length) / rate : 0;
    return {
      kind: "file",
      heard: done ? this.seconds : heard,
      seconds: this.seconds,
      answer: this.answer,
      segments: this.timeline.segments(),
      bytes: this.held.bytes + this.buffer.byteLength,
      done,
    };
  }
}

// Sound that goes on. Whole chunks are final; the part of a chunk that there is gives an answer for now,
// which the final one replaces, so that no answer waits for the rest of a chunk.
export class LiveHearing {
  constructor(model, settings = {}) {
    const { about } = model;
    this.model = model;
    this.stream = { ...about.stream, ...settings };
    this.rate = about.sample_rate;
    this.held = new Held(about);
    this.buffer = new Float32Array(0); // from the beginning of the next chunk on
    this.cut = this.seen = 0;
    this.next = this.stream.minimum; // seconds at which the next final hop ends
    this.belief = null;
    this.since = 0;
    this.last = null; // the last final window
    this.soon = []; // windows heard for now: {end, out}
    this.segments = []; // {start, end, meter, score}
    this.tail = [];
    this.skipped = 0;
    this.answer = null;
  }

  push(block) { // samples at the model's rate
    const joined = new Float32Array(this.buffer.length + block.length);
    joined.set(this.buffer);
    joined.set(block, this.buffer.length);
    this.buffer = joined;
    this.seen += block.length;
  }

  get waiting() { // seconds that are not encoded
    return this.buffer.length / this.rate;
  }

  // Hear what has come; true when there is something new to show.
  async advance() {
    const { chunk, frame } = this.model.about;
    let news = false;
    while (this.buffer.length >= chunk.length) {
      const late = this.buffer.length >= 2 * chunk.hop + chunk.length;
      const samples = this.buffer.slice(0, chunk.length);
      this.buffer = this.buffer.slice(chunk.hop);
      this.cut += 1;
      if (late) this.held.pass(frame.per_chunk);
      else {
        const { data, frames } = await this.model.front(samples);
        this.held.append(data, frames);
      }
      await this.settle(this.held.end / frame.rate, late);
      news = true;
    }
    return (await this.foresee()) || news;
  }

  // The final answers of all hops up to `covered` seconds; of hops that are late only the newest.
  async settle(covered, late) {
    const { hop, window, minimum } = this.stream;
    while (this.next <= covered + 1e-6) {
      this.since += 1;
      const end = this.next, begin = Math.max(0, end - window);
      const behind = this.waiting > LATE + this.model.about.chunk.hop / this.rate;
      const passed = late || (behind && end + hop <= covered + 1e-6);
      const known = end - Math.max(begin, this.held.begin / this.model.about.frame.rate);
      if (passed || known < minimum - 1e-9) this.skipped += 1;
      else {
        const out = await hearWindow(this.model, this.held, begin, end);
        const said = judge(this.model.about, out, end - begin);
        this.belief = believe(this.belief, said.scores, said.heard, this.since, this.stream);
        this.last = { said, end };
        this.since = 0;
        this.extend(this.segments, this.view(this.belief, said, end));
      }
      this.next += hop;
      this.held.forget(Math.floor(Math.max(0, this.next - window) * this.model.about.frame.rate));
    }
    this.soon = this.soon.filter((w) => w.end >= this.next - 1e-6);
    this.show();
  }

  // The newest hop, by the part of a chunk that there is.
  async foresee() {
    const { about } = this.model, { chunk, frame } = about, { hop, window, minimum } = this.stream;
    const now = this.seen / this.rate;
    if (now < this.next - 1e-9) return false;
    const end = this.next + Math.floor((now - this.next) / hop + 1e-9) * hop;
    if (this.soon.some((w) => Math.abs(w.end - end) < 1e-6)) return false;
    const count = round(end * this.rate) - this.cut * chunk.hop;
    if (count < chunk.shortest || count >= chunk.length - frame.hop || count > this.buffer.length) return false;
    const { data, frames } = await this.model.front(this.buffer.slice(0, count));
    const more = { at: this.held.end, frames, skip: 0, data };
    const last = this.held.end + frames;
    const first = Math.max(this.held.begin, round(Math.max(0, end - window) * frame.rate));
    if ((last - first) / frame.rate < minimum - 0.1) return false;
    const out = await hearWindow(this.model, this.held, first, last, more);
    this.soon.push({ end, said: judge(about, out, Math.min(end, window)) });
    this.show();
    return true;
  }

  // What is believed with the answers for now.
  show() {
    let belief = this.belief, hops = this.since, at = this.next - this.stream.hop, said = this.last?.said;
    const tail = [];
    for (const window of this.soon) {
      hops += Math.round((window.end - at) / this.stream.hop);
      belief = believe(belief, window.said.scores, window.said.heard, hops, this.stream);
      [at, hops, said] = [window.end, 0, window.said];
      this.extend(tail, this.view(belief, said, at));
    }
    this.tail = tail;
    if (belief) this.answer = this.view(belief, said, at);
  }

  // Belief and last window as an answer: bars and headline are of the same belief.
  view(belief, said, end) {
    const { classes } = this.model.about;
    const k = argmax(belief), meter = k < classes.length ? classes[k] : null;
    const agrees = said.how === "sure" && said.meter === meter;
    return {
      meter,
      second: meter === null ? null : this.secondBeside(k, said.scores),
      how: meter === null ? "" : agrees ? "sure" : belief[k] >= 0.5 ? "likely" : "guess",
      scores: belief.slice(0, classes.length),
      heard: belief.length > classes.length ? 1 - belief.at(-1) : null,
      probability: belief[k],
      end,
    };
  }

  // The best other class of the last window, when it is above its threshold.
  secondBeside(k, scores) {
    const { classes, thresholds } = this.model.about;
    const others = classes.map((_, i) => i).filter((i) => i !== k);
    if (!thresholds.second || !others.length) return null;
    const best = others[argmax(others.map((i) => scores[i]))];
    return scores[best] > thresholds.second[classes[best]] ? classes[best] : null;
  }

  extend(segments, view) {
    const last = segments.at(-1);
    const start = last ? last.end : Math.max(0, view.end - this.stream.hop);
    if (last && last.meter === view.meter) {
      last.end = view.end;
      last.score += (view.probability - last.score) / ++last.count;
    } else {
      segments.push({ start: last ? start : 0, end: view.end, meter: view.meter, score: view.probability, count: 1 });
    }
    if (segments.length > 2000) segments.shift(); // hours of changes: the state stays flat
  }

  // The sound is over: hear what is left.
  async finish() {
    await this.advance();
    return this.state(true);
  }

  state(done = false) {
    const joined = this.segments.map((s) => ({ ...s }));
    for (const s of this.tail) {
      const last = joined.at(-1);
      if (last && last.meter === s.meter) last.end = s.end;
      else joined.push({ ...s, start: last ? last.end : 0 });
    }
    const heard = this.seen / this.rate;
    return {
      kind: "live",
      heard,
      answered: this.answer ? this.answer.end : 0,
      seconds: heard,
      answer: this.answer,
      segments: joined,
      skipped: this.skipped,
      bytes: this.held.bytes + this.buffer.byteLength,
      done,
    };
  }
}

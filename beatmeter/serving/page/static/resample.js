// Mono audio from one sample rate to another, block by block: a windowed sinc, so that every browser hears
// the same. Kaiser window after Kaiser & Schafer (1980): 100 dB, pass band up to 0.913 of the lower Nyquist.

const HALF = 72; // zero crossings of the sinc on each side, in samples of the lower rate
const CUTOFF = 0.9565; // of the lower Nyquist: the middle of the transition band
const BETA = 10.06; // Kaiser's for 100 dB
const PHASES = 512; // of the table; ratios that need more interpolate between two of them

function bessel(x) { // modified Bessel function of the first kind, order 0
  let sum = 1, term = 1;
  for (let k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function divisor(a, b) {
  return b ? divisor(b, a % b) : a;
}

function kernel(t) { // of the time t in samples of the lower rate
  if (Math.abs(t) >= HALF) return 0;
  const x = Math.PI * CUTOFF * t;
  const sinc = x === 0 ? 1 : Math.sin(x) / x;
  return CUTOFF * sinc * bessel(BETA * Math.sqrt(1 - (t / HALF) ** 2)) / bessel(BETA);
}

export class Resampler {
  // Output sample j lies at the time of input sample j * from / to; silence is assumed before and after.
  constructor(from, to) {
    if (!(from >= 1 && to >= 1 && Number.isInteger(from) && Number.isInteger(to))) {
      throw new RangeError(`cannot resample from ${from} to ${to} Hz`);
    }
    const common = divisor(from, to);
    this.up = to / common;
    this.down = from / common;
    this.scale = Math.min(1, to / from); // of a time step of the input, in samples of the lower rate
    this.reach = Math.ceil(HALF / this.scale); // input samples on each side
    this.held = new Float32Array(this.reach); // silence before the first sample
    this.begin = -this.reach; // index of the first held sample
    this.seen = 0; // input samples so far
    this.made = 0; // output samples so far
    this.phases = Math.min(this.up, PHASES);
    this.exact = this.up <= PHASES;
    this.taps = 2 * this.reach;
    this.table = from === to ? null : this.fill();
  }

  fill() { // (phases + 1, taps): weights of the inputs around an output that lies phase / phases after one
    const table = new Float32Array((this.phases + 1) * this.taps);
    for (let p = 0; p <= this.phases; p++) {
      for (let k = 0; k < this.taps; k++) {
        const distance = k - this.reach + 1 - p / this.phases;
        table[p * this.taps + k] = this.scale * kernel(distance * this.scale);
      }
    }
    return table;
  }

  // How many samples come of `samples` at the input.
  length(samples) {
    return Math.floor((samples * this.up) / this.down + 0.5);
  }

  push(block) {
    if (!this.table) {
      this.seen += block.length;
      this.made += block.length;
      return block;
    }
    const joined = new Float32Array(this.held.length + block.length);
    joined.set(this.held);
    joined.set(block, this.held.length);
    this.held = joined;
    this.seen += block.length;
    // an output needs `reach` inputs after it
    const ready = Math.floor(((this.seen - this.reach - 1) * this.up) / this.down) + 1;
    return this.make(Math.max(this.made, ready));
  }

  // The rest, once there is no more input.
  finish() {
    if (!this.table) return new Float32Array(0);
    const total = this.length(this.seen);
    const padded = new Float32Array(this.held.length + this.reach + 1 + Math.ceil(this.down / this.up));
    padded.set(this.held);
    this.held = padded;
    return this.make(Math.max(this.made, total));
  }

  make(upto) {
    const out = new Float32Array(upto - this.made);
    const { up, down, taps, table, held } = this;
    for (let i = 0; i < out.length; i++) {
      const at = (this.made + i) * down;
      const whole = Math.floor(at / up);
      const phase = ((at - whole * up) * this.phases) / up;
      const low = this.exact ? Math.round(phase) : Math.floor(phase);
      const part = this.exact ? 0 : phase - low;
      let first = whole - this.reach + 1 - this.begin;
      let sum = 0, next = 0;
      for (let k = 0, t = low * taps; k < taps; k++, t++) {
        const x = held[first + k];
        sum += x * table[t];
        if (part) next += x * table[t + taps];
      }
      out[i] = part ? sum + part * (next - sum) : sum;
    }
    this.made = upto;
    const needed = Math.floor((this.made * down) / up) - this.reach + 1;
    const drop = Math.min(Math.max(0, needed - this.begin), held.length);
    this.held = held.slice(drop);
    this.begin += drop;
    return out;
  }
}

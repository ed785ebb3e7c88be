// What is believed after many windows: the same formulas as beatmeter's MeterStream and timeline.
// States are the classes and, where the model can tell, no meter as the last one.

const LEAST = 1e-4;

const clip = (x, low, high) => Math.min(high, Math.max(low, x));

// Python's round: halves to even.
export function round(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

// Log likelihood of every state by the calibrated scores of a window of which `share` is new; `heard` is
// the probability of a meter at all, null where the model does not tell.
export function evidence(scores, share, heard) {
  const p = Array.from(scores, (s) => clip(s, LEAST, 1));
  const sum = p.reduce((a, b) => a + b, 0);
  const likelihood = p.map((x) => x / sum);
  if (heard === null) return likelihood.map((x) => share * Math.log(x));
  const h = clip(heard, LEAST, 1 - LEAST);
  return [...likelihood.map((x) => h * p.length * x), 1 - h].map((x) => share * Math.log(x));
}

// The belief after one more window, `hops` hops after the one before; `before` is null at first.
export function believe(before, scores, heard, hops, stream) {
  const states = scores.length + (heard === null ? 0 : 1);
  const stay = before ? Math.exp((-hops * stream.hop) / stream.duration) : 1;
  const share = before ? Math.min(1, (hops * stream.hop) / stream.window) : 1;
  const found = evidence(scores, share, heard).map((x, i) => {
    const was = before ? before[i] : 1 / states;
    return (stay * was + ((1 - stay) / Math.max(1, states - 1)) * (1 - was)) * Math.exp(x);
  });
  const sum = found.reduce((a, b) => a + b, 0);
  return found.map((x) => x / sum);
}

// The most probable sequence of meters (Viterbi) over windows that come one by one.
export class Timeline {
  constructor(classes, thresholds, duration) {
    Object.assign(this, { classes, thresholds, duration });
    this.windows = []; // {start, end, scores, heard}
    this.back = [];
    this.best = null;
  }

  add(window) {
    const last = this.windows.at(-1);
    const length = window.end - window.start;
    const share = clip((window.end - (last ? last.end : window.start)) / length, 0, 1);
    const found = evidence(window.scores, share, window.heard);
    const count = found.length;
    const from = new Uint8Array(count);
    if (!last) this.best = found;
    else {
      const step = (window.start + window.end - last.start - last.end) / 2;
      const stay = Math.exp(-step / this.duration);
      const other = Math.log(clip((1 - stay) / Math.max(1, count - 1), 1e-12, 1));
      const same = Math.log(clip(stay, 1e-12, 1));
      const before = this.best;
      this.best = found.map((x, k) => {
        const reach = before.map((b, j) => b + (j === k ? same : other));
        from[k] = argmax(reach);
        return reach[from[k]] + x;
      });
    }
    this.back.push(from);
    this.windows.push(window);
  }

  // The state of every window so far; -1 where no meter is heard.
  path() {
    const found = new Array(this.windows.length);
    let k = this.windows.length ? argmax(this.best) : 0;
    for (let t = found.length - 1; t >= 0; t--) {
      found[t] = k === this.classes.length ? -1 : k;
      k = this.back[t][k];
    }
    return found;
  }

  // Stretches with one meter: {start, end, meter (null: none), score, second}, seconds.
  segments() {
    const path = this.path();
    const centre = (i) => (this.windows[i].start + this.windows[i].end) / 2;
    const found = [];
    for (let a = 0; a < path.length; ) {
      let b = a;
      while (b + 1 < path.length && path[b + 1] === path[a]) b++;
      const start = a === 0 ? this.windows[0].start : (centre(a - 1) + centre(a)) / 2;
      const end = b === path.length - 1 ? this.windows[b].end : (centre(b) + centre(b + 1)) / 2;
      found.push({ start, end, ...this.describe(this.windows.slice(a, b + 1), path[a]) });
      a = b + 1;
    }
    return found;
  }

  describe(inside, k) {
    const mean = (f) => inside.reduce((sum, w) => sum + f(w), 0) / inside.length;
    if (k < 0) return { meter: null, score: mean((w) => 1 - w.heard), second: null };
    let second = null, most = 0.5;
    this.thresholds?.forEach((threshold, c) => {
      const over = c === k ? 0 : mean((w) => (w.scores[c] > threshold ? 1 : 0));
      if (over > most) [second, most] = [this.classes[c], over];
    });
    return { meter: this.classes[k], score: mean((w) => w.scores[k]), second };
  }
}

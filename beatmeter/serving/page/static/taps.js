// Beats that a listener taps along: their tempo, how many there are from one "one" to the next, and how that
// agrees with the meter that is heard.

const PAUSE = 3; // seconds without a tap after which a new count begins
const KEPT = 64; // taps

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

export class Taps {
  constructor() {
    this.clear();
  }

  clear() {
    this.taps = []; // {time, one}, seconds
  }

  tap(time, one = false) {
    if (this.taps.length && time - this.taps.at(-1).time > PAUSE) this.clear();
    this.taps.push({ time, one: one || this.taps.length === 0 });
    if (this.taps.length > KEPT) this.taps.shift();
  }

  // Beats a minute; null before the third tap.
  get tempo() {
    if (this.taps.length < 3) return null;
    return 60 / median(this.taps.slice(1).map((t, i) => t.time - this.taps[i].time));
  }

  // Beats from one to one, the median over bars; null before two ones were tapped.
  get bar() {
    const ones = this.taps.map((t, i) => (t.one ? i : -1)).filter((i) => i >= 0);
    if (ones.length < 2) return null;
    return median(ones.slice(1).map((at, i) => at - ones[i]));
  }

  // Where in a bar of `meter` beats the last tap is, 1 to meter, counted from the last "one".
  place(meter) {
    const last = this.taps.findLastIndex((t) => t.one);
    if (!this.taps.length || !(meter > 0)) return null;
    return last < 0 ? null : ((this.taps.length - 1 - last) % meter) + 1;
  }

  // Whether the bars tapped are those heard: null while either is missing.
  agrees(meter) {
    return this.bar === null || !(meter > 0) ? null : this.bar === meter;
  }
}

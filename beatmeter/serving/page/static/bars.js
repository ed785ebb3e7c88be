// Beats and bars from curves: the search of beatmeter/tasks/structure/decoding, the same answer but for ties.
// A state is a beat: its row, its place in which kind of bar, and the length of a beat at that moment.

const MUSIC = { 4: 0.6, 3: 0.22, 7: 0.06, 5: 0.05, 9: 0.04, 11: 0.03 };
const GROUPINGS = {
  3: [["1+1+1", 0.65], ["1+1", 0.35]],
  4: [["1+1+1+1", 0.8], ["1+1", 0.2]],
  5: [["1+1+1+1+1", 0.5], ["3+2", 0.25], ["2+3", 0.25]],
  7: [["1+1+1+1+1+1+1", 0.35], ["2+2+3", 0.3], ["3+2+2", 0.25], ["2+3+2", 0.1]],
  9: [["2+2+2+3", 0.5], ["3+2+2+2", 0.2], ["2+3+2+2", 0.15], ["2+2+3+2", 0.15]],
  11: [["2+2+3+2+2", 0.45], ["3+3+3+2", 0.2], ["2+2+2+2+3", 0.2], ["3+2+2+2+2", 0.15]],
};
const FINE = 2, LARGEST = 6, NEVER = -1e9, LONG = 300, SHARED = 20, DOUBT = 0.02, LEAST = 0.01;
const FEW = 12, STEADY = 1.3, BEATS = 16, DOWNBEATS = 8, MOSTLY = 0.8; // where every second beat or downbeat is compared
const clip = (x, low, high) => Math.min(high, Math.max(low, x));
const even = (x) => { // halves to even, as numpy rounds
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
};

// Probabilities of the kinds of bars by the answer of the meter model; null where it hears no meter.
export function priorOf(answer, classes) {
  if (!answer || answer.meter === null) return null;
  const sum = Math.max(answer.scores.reduce((a, b) => a + b, 0), 1e-9);
  return Object.fromEntries(
    classes.map((name, i) => [name, Math.max(answer.scores[i] / sum, DOUBT) * Math.sqrt(MUSIC[name] ?? 0)]),
  );
}

function kindsOf(prior) {
  const chances = prior ?? MUSIC, found = [];
  const order = ["3", "4", "5", "7", "9", "11"];
  const total = order.reduce((sum, meter) => sum + Math.max(0, chances[meter] ?? 0), 0) || 1;
  for (const meter of order) {
    for (const [text, share] of GROUPINGS[meter]) {
      const pulses = text.split("+").map(Number), mean = pulses.reduce((a, b) => a + b, 0) / pulses.length;
      const weight = (Math.max(0, chances[meter] ?? 0) / total) * share;
      if (weight >= LEAST) found.push({ meter, beats: pulses.map((p) => p / mean), weight });
    }
  }
  return found.length ? found : [{ meter: "4", beats: [1, 1, 1, 1], weight: 1 }];
}

function logOdds(curve) {
  const p = Array.from(curve, (x) => clip(x, 1e-4, 1 - 1e-4));
  const mean = p.reduce((a, b) => a + b, 0) / p.length, base = Math.log(mean / (1 - mean));
  return p.map((x) => clip(Math.log(x / (1 - x)) - base, -LARGEST, LARGEST));
}

function doubled(values) { // a value between each two
  const found = new Float64Array(FINE * (values.length - 1) + 1);
  for (let i = 0; i < found.length; i++) {
    const at = i / FINE, low = Math.min(Math.floor(at), values.length - 1), high = Math.min(low + 1, values.length - 1);
    found[i] = values[low] + (values[high] - values[low]) * (at - low);
  }
  return found;
}

// The tops of parabolas through the peaks nearest to the beats, in rows.
function onPeaks(curve, rows) {
  const last = curve.length - 1, clipped = (i) => clip(i, 0, last);
  let most = -Infinity, before = -1;
  const moved = rows.map((row) => {
    const near = [0, -1, 1].map((by) => clipped(even(row) + by));
    const top = near.reduce((best, at) => (curve[at] > curve[best] ? at : best));
    const [left, middle, right] = [curve[clipped(top - 1)], curve[top], curve[clipped(top + 1)]];
    const bend = left - 2 * middle + right;
    if (!(top > 0 && top < last && middle >= left && middle >= right)) return row;
    return top + (bend < 0 ? clip((0.5 * (left - right)) / bend, -0.5, 0.5) : 0);
  });
  return moved.map((row, i) => {
    most = Math.max(most, row);
    const apart = most - before > 0.5;
    before = most;
    return apart ? most : rows[i];
  });
}

class Search {
  constructor(kinds, rate, settings) {
    const { lengths: count, beats } = settings;
    Object.assign(this, { kinds, settings });
    this.first = [];
    this.kind = [];
    this.place = [];
    kinds.forEach((kind, k) => {
      this.first.push(this.kind.length);
      kind.beats.forEach((_, i) => {
        this.kind.push(k);
        this.place.push(i);
      });
    });
    this.last = kinds.map((kind, k) => this.first[k] + kind.beats.length - 1);
    const places = (this.places = this.kind.length);
    this.before = this.kind.map((k, p) => (this.place[p] === 0 ? this.last[k] : p - 1));
    const ratio = Math.log(beats[1] / beats[0]) / (count - 1);
    this.lengths = Array.from({ length: count }, (_, i) => beats[0] * Math.exp(ratio * i));
    this.barred = new Float32Array(count * places);
    this.rows = new Int32Array(count * places);
    this.bar = new Float32Array(count * kinds.length);
    const weights = kinds.map((kind) => kind.weight), sum = weights.reduce((a, b) => a + b, 0);
    const most = Math.max(...weights);
    this.chance = Float32Array.from(weights, (w) => settings.prior * Math.log(w / sum));
    this.lengths.forEach((seconds, l) => {
      kinds.forEach((kind, k) => {
        const bar = seconds * kind.beats.length, shortest = seconds * Math.min(...kind.beats);
        const fits = bar >= settings.bars[0] && bar <= settings.bars[1] && shortest >= 0.6 * beats[0];
        const far = Math.log(bar / settings.usual[0]) / settings.usual[1];
        const off = Math.log(seconds / settings.moderate[0]) / settings.moderate[1];
        const lengths = settings.length * far ** 2 + settings.pace * kind.beats.length * off ** 2;
        this.bar[l * kinds.length + k] = settings.each * Math.log(weights[k] / most) - 0.5 * lengths;
        kind.beats.forEach((beat, i) => {
          const at = l * places + this.first[k] + i;
          this.barred[at] = fits ? 0 : NEVER;
          this.rows[at] = Math.max(1, even(seconds * beat * rate));
        });
      });
    });
    this.step = Math.fround(settings.change * Math.log(this.lengths[1] / this.lengths[0]));
    this.wait = settings.skipped / rate;
  }

  // Row, place and kind of bar of every beat.
  best(beat, down) {
    const { places, kinds, lengths, first, last, kind, place, rows, barred, chance } = this;
    const states = lengths.length * places, depth = rows.reduce((a, b) => Math.max(a, b)) + 1, n = beat.length;
    const left = new Float32Array(depth * states).fill(NEVER);
    const came = new Uint8Array(n * states); // length before a change
    const begun = new Uint8Array(Math.ceil((n * states) / 8)); // whether a path begins there
    const other = new Uint8Array(n * lengths.length * kinds.length); // kind of bar before
    const score = new Float32Array(states), wait = Math.fround(this.wait), { step } = this;
    let top = NEVER, end = null;
    for (let row = 0; row < n; row++) {
      const idle = Math.fround(wait * row);
      let highest = -Infinity, at = 0;
      for (let l = 0; l < lengths.length; l++) {
        const base = l * places;
        for (let p = 0; p < places; p++) {
          const from = this.before[p], ago = row - rows[base + from];
          score[base + p] = ago < 0 ? NEVER : left[(ago % depth) * states + base + from];
        }
        let best = -Infinity, which = 0;
        for (let k = 0; k < kinds.length; k++) {
          const value = Math.fround(score[base + first[k]] + chance[k]);
          if (value > best) [best, which] = [value, k];
        }
        const through = Math.fround(score[base + first[which]] - this.settings.other_bar);
        for (let k = 0; k < kinds.length; k++) {
          const own = base + first[k], changes = through > score[own];
          other[(row * lengths.length + l) * kinds.length + k] = changes ? which : k;
        }
        for (let k = 0; k < kinds.length; k++) score[base + first[k]] = Math.max(score[base + first[k]], through);
        for (let p = 0; p < places; p++) {
          const s = base + p, fresh = Math.fround(Math.fround(chance[kind[p]] + barred[s]) - idle);
          if (fresh > score[s]) {
            score[s] = fresh;
            const bit = row * states + s;
            begun[bit >> 3] |= 1 << (bit & 7);
          }
          score[s] += Math.fround(beat[row] + barred[s]);
          if (place[p] === 0) score[s] += Math.fround(down[row] + this.bar[l * kinds.length + kind[p]]);
          if (score[s] > highest) [highest, at] = [score[s], s];
        }
      }
      this.spread(score, left.subarray((row % depth) * states, (row % depth + 1) * states), came.subarray(row * states, (row + 1) * states), step);
      highest -= this.wait * (n - 1 - row);
      if (highest >= top) [top, end] = [highest, [row, at]];
    }
    return end ? this.trace(end, came, other, begun, states) : [];
  }

  // What is best after a change of tempo, which costs `step` for every length that it moves.
  spread(score, left, came, step) {
    const { places } = this, count = this.lengths.length;
    for (let p = 0; p < places; p++) {
      let best = -Infinity, from = 0;
      for (let l = 0; l < count; l++) {
        const value = Math.fround(score[l * places + p] + Math.fround(step * l));
        if (value >= best) [best, from] = [value, l];
        left[l * places + p] = best - Math.fround(step * l);
        came[l * places + p] = from;
      }
      best = -Infinity;
      for (let l = count - 1; l >= 0; l--) {
        const value = Math.fround(score[l * places + p] - Math.fround(step * l));
        if (value >= best) [best, from] = [value, l];
        const fall = Math.fround(best + Math.fround(step * l)), s = l * places + p;
        if (fall > left[s]) [left[s], came[s]] = [fall, from];
      }
    }
  }

  trace([row, state], came, other, begun, states) {
    const { places, kinds, lengths } = this, path = [];
    let length = Math.floor(state / places), p = state % places, at = row;
    while (at >= 0) {
      path.push([at, this.place[p], this.kind[p]]);
      const bit = at * states + length * places + p;
      if (begun[bit >> 3] & (1 << (bit & 7))) break;
      const before = this.place[p] === 0 ? this.last[other[(at * lengths.length + length) * kinds.length + this.kind[p]]] : this.before[p];
      at -= this.rows[length * places + before];
      if (at < 0) break;
      [length, p] = [came[at * states + length * places + before], before];
    }
    return path.reverse();
  }
}

// {times (seconds), places (from 1), meter (of most bars)} by the curves of beat and downbeat, `rate` rows a
// second, the first at `start` seconds. `settings` are those of the pointer, in model.json.
export function findBars(beat, down, rate, start, prior, settings) {
  if (beat.length < 2 || !beat.some((x) => x > 0)) return { times: [], places: [], meter: "" };
  const found = decode(beat, down, rate, start, prior, settings);
  const slow = slower(found, [beat, down], rate, start, settings);
  const again = slow ? decode(beat, down, rate, start, prior, slow) : found;
  const best = again.places.filter((place) => place === 1).length > 2 ? again : found;
  return settings.pairs ? paired(best, down, rate, start, settings.pairs) : best;
}

function decode(beat, down, rate, start, prior, settings) {
  if (beat.length > LONG * rate) return inParts(beat, down, rate, start, prior, settings);
  const kinds = kindsOf(prior), odds = doubled(logOdds(beat)), first = doubled(logOdds(down));
  const path = new Search(kinds, rate * FINE, settings).best(
    Float32Array.from(odds, (x) => x - settings.beat), Float32Array.from(first, (x) => settings.downbeat * x),
  );
  const rows = onPeaks(beat, path.map(([row]) => row / FINE));
  return {
    times: rows.map((row) => start + row / rate),
    places: path.map(([, place]) => place + 1),
    meter: most(path.map(([, , k]) => kinds[k].meter)),
  };
}

function most(names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a), ["", 0])[0];
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

// Settings for beats of about twice the length, where more speaks for them than against; else null.
function slower({ times, places }, curves, rate, start, settings) {
  if (!settings.slower.length || times.length < FEW) return null;
  const downbeats = times.filter((_, i) => places[i] === 1);
  const [beats, bars] = [times, downbeats].map((some, i) => strengths(curves[i], some, rate, start));
  const length = median(times.slice(1).map((t, i) => t - times[i])), [shortest, longest] = settings.beats;
  const cues = [1, everyOther(beats, BEATS), everyOther(bars, DOWNBEATS), Math.log(length)];
  const low = Math.max((2 * length) / STEADY, shortest), high = Math.min(2 * length * STEADY, longest);
  if (settings.slower.reduce((sum, weight, i) => sum + weight * cues[i], 0) <= 0 || high <= low) return null;
  const share = Math.log(high / low) / Math.log(longest / shortest);
  return { ...settings, beats: [low, high], lengths: Math.max(8, even(share * settings.lengths)) };
}

// Bars of four beats where those that were found have two and every second downbeat is weak.
function paired(found, down, rate, start, [apart, cost]) {
  const first = found.places.flatMap((place, i) => (place === 1 ? [i] : [])), last = first.length - 1;
  const twos = first.filter((at, i) => i && at - first[i - 1] === 2).length;
  if (found.meter !== "4" || last + 1 < DOWNBEATS / 2 || twos / last < MOSTLY) return found;
  const strong = strengths(down, first.map((i) => found.times[i]), rate, start);
  if (everyOther(strong, DOWNBEATS) <= apart) return found;
  const best = [...strong], before = strong.map(() => -1);
  for (let at = 1; at < strong.length; at++) { // every second one, the strongest in sum
    let [most, from] = [-Infinity, -1];
    for (const step of [2, 1, 3]) {
      const reached = step <= at ? best[at - step] - (step === 2 ? 0 : cost) : -Infinity;
      if (reached > most) [most, from] = [reached, at - step];
    }
    if (at > 2 || most > 0) [best[at], before[at]] = [best[at] + most, from];
  }
  const kept = new Set();
  for (let at = best[last] > best[last - 1] ? last : last - 1; at >= 0; at = before[at]) kept.add(first[at]);
  let since = Math.min(...kept);
  const places = found.times.map((_, i) => {
    if (kept.has(i)) since = i;
    return i < since ? ((((i - since) % 4) + 4) % 4) + 1 : i - since + 1;
  });
  return { ...found, places };
}

// The log-odds of a curve at some times.
function strengths(curve, times, rate, start) {
  const odds = logOdds(curve);
  return times.map((time) => {
    const at = clip(even((time - start) * rate), 0, odds.length - 1);
    return Math.max(odds[at - 1] ?? -Infinity, odds[at], odds[at + 1] ?? -Infinity);
  });
}

// How far every second value is from the others, mean over windows that overlap by half.
function everyOther(values, size) {
  const apart = [], mean = (some) => some.reduce((a, b) => a + b, 0) / some.length;
  for (let at = 0; at < Math.max(1, values.length - size + 1); at += size / 2) {
    const some = values.slice(at, at + size);
    if (2 * some.length < size) continue;
    apart.push(Math.abs(mean(some.filter((_, i) => i % 2 === 0)) - mean(some.filter((_, i) => i % 2))));
  }
  return apart.length ? mean(apart) : 0;
}

function inParts(beat, down, rate, start, prior, settings) {
  const size = Math.round(LONG * rate), hop = Math.round((LONG - SHARED) * rate), parts = [];
  for (let at = 0; at < Math.max(1, beat.length - Math.round(SHARED * rate)); at += hop) {
    const [some, its] = [beat, down].map((curve) => curve.slice(at, at + size));
    let part = decode(some, its, rate, start + at / rate, prior, settings);
    const last = parts.at(-1);
    if (last?.times.length && part.times.length) {
      const seam = start + at / rate + SHARED / 2;
      const bar = part.times.find((t, i) => part.places[i] === 1 && t >= seam);
      const cut = bar !== undefined && bar < seam + SHARED / 2 ? bar : seam;
      const gap = part.times.length > 1 ? 0.5 * median(part.times.slice(1).map((t, i) => t - part.times[i])) : 0;
      parts[parts.length - 1] = kept(last, (t) => t < cut - gap);
      part = kept(part, (t) => t >= cut - 1e-6);
    }
    parts.push(part);
  }
  const all = (name) => parts.flatMap((part) => part[name]);
  return { times: all("times"), places: all("places"), meter: most(parts.flatMap((p) => p.times.map(() => p.meter))) };
}

function kept(part, wanted) {
  const where = part.times.map(wanted);
  return { ...part, times: part.times.filter((_, i) => where[i]), places: part.places.filter((_, i) => where[i]) };
}

// Long MP3 files, part by part: an hour that is unpacked at once fills the memory of a browser. Parts are cut
// between frames; each is decoded with some frames before it, which fill the decoder, and of the result only
// the end counts.

import { HearingError } from "./states.js";
import { unpack } from "./waves.js";

export const LONG = 600; // seconds from which a file is read in parts
const PART = 300; // seconds of a part
const BEFORE = 20; // frames: the bits of a frame may lie in up to nine frames before it
const BLOCK = 1 << 20; // bytes that are looked through at a time
const RATES = [44100, 48000, 32000];
const KILOBITS = { // of layer III, by the version
  1: [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  2: [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};

// {rate, samples, bytes} of the frame whose header is at `at`; null where there is none.
export function frameAt(bytes, at) {
  if (bytes[at] !== 0xff || (bytes[at + 1] & 0xe0) !== 0xe0 || ((bytes[at + 1] >> 1) & 3) !== 1) return null;
  const version = (bytes[at + 1] >> 3) & 3, code = (bytes[at + 2] >> 2) & 3, index = bytes[at + 2] >> 4;
  const kilobits = KILOBITS[version === 3 ? 1 : 2][index];
  if (version === 1 || code === 3 || !kilobits) return null;
  const rate = RATES[code] / [4, 1, 2, 1][version], samples = version === 3 ? 1152 : 576;
  return { rate, samples, bytes: Math.floor((samples * 125 * kilobits) / rate) + ((bytes[at + 2] >> 1) & 1) };
}

function afterTag(head) {
  if (head[0] !== 0x49 || head[1] !== 0x44 || head[2] !== 0x33) return 0; // ID3v2
  return 10 + ((head[6] & 127) << 21) + ((head[7] & 127) << 14) + ((head[8] & 127) << 7) + (head[9] & 127);
}

// {rate, samples, read(begin, end)} of an MP3 file of at least `long` seconds; null for any other file.
export async function openMpeg(file, long = LONG, part = PART) {
  const head = new Uint8Array(await file.slice(0, 10).arrayBuffer());
  let at = afterTag(head), bytes = new Uint8Array(0), base = at, first = null, frames = 0, missed = 0;
  let size = 0; // frames of a part
  const recent = []; // where the last frames begin
  const parts = []; // {from, at}: the byte where decoding begins, and where the first frame of the part does
  for (;;) {
    if (at - base + 4 > bytes.length) {
      if (at + 4 > file.size) break;
      base = at;
      bytes = new Uint8Array(await file.slice(base, base + BLOCK).arrayBuffer());
    }
    const frame = frameAt(bytes, at - base);
    if (!frame || (first && frame.rate !== first.rate)) {
      missed += 1;
      if (missed > 4096 + 0.01 * at) return null;
      at += 1;
      continue;
    }
    if (!first) {
      first = frame;
      size = Math.ceil((part * frame.rate) / frame.samples);
    }
    recent.push(at);
    if (recent.length > BEFORE + 1) recent.shift();
    if (frames % size === 0) parts.push({ from: recent[0], at });
    frames += 1;
    at += frame.bytes;
  }
  if (!first || frames * first.samples < long * first.rate) return null;
  return source(file, first, frames, size, parts, at);
}

function source(file, { rate, samples: each }, frames, size, parts, end) {
  let held = { part: -1, samples: null };
  const decode = async (part) => {
    const stop = parts[part + 1]?.at ?? end;
    const counted = Math.min(size, frames - part * size) * each;
    const all = await unpack(file.slice(parts[part].from, stop), rate);
    const samples = new Float32Array(counted); // the end counts, whatever a decoder leaves out at the beginning
    const kept = all.subarray(Math.max(0, all.length - counted));
    samples.set(kept, counted - kept.length);
    held = { part, samples };
  };
  return {
    rate,
    samples: frames * each,
    async read(begin, stop) {
      const out = new Float32Array(stop - begin);
      for (let at = begin; at < stop; ) {
        const part = Math.floor(at / (size * each)), first = part * size * each;
        if (held.part !== part) await decode(part);
        const upto = Math.min(stop, first + held.samples.length);
        if (upto <= at) throw new HearingError("cutShort");
        out.set(held.samples.subarray(at - first, upto - first), at - begin);
        at = upto;
      }
      return out;
    },
  };
}

// Sound files to mono samples. WAV is read part by part at its own rate; other formats go through the
// browser's decoder, at the rate that their header names, so that the browser does not resample.

import { HearingError } from "./states.js";

export const MOST_DECODED = 1 << 30; // bytes that a decoded file may take in memory

const text = (view, at, count) => String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at, count));

// Readers of one sample by (format, bits): 1 is integers, 3 floats.
const READERS = {
  "1/8": (v, at) => (v.getUint8(at) - 128) / 128,
  "1/16": (v, at) => v.getInt16(at, true) / 32768,
  "1/24": (v, at) => ((v.getUint8(at + 2) << 24) | (v.getUint16(at, true) << 8)) / 2147483648,
  "1/32": (v, at) => v.getInt32(at, true) / 2147483648,
  "3/32": (v, at) => v.getFloat32(at, true),
  "3/64": (v, at) => v.getFloat64(at, true),
};

// {rate, samples, read(begin, end) -> Float32Array} of a WAV file; null when it is none.
export async function openWave(file) {
  const head = new DataView(await file.slice(0, 12).arrayBuffer());
  if (head.byteLength < 12 || text(head, 0, 4) !== "RIFF" || text(head, 8, 4) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= file.size; ) {
    const chunk = new DataView(await file.slice(at, at + 8 + 40).arrayBuffer());
    const name = text(chunk, 0, 4), size = chunk.getUint32(4, true);
    if (name === "fmt " && chunk.byteLength >= 24) format = readFormat(chunk);
    if (name === "data") {
      if (!format) throw new HearingError("notSound");
      // a size that was not known when the header was written
      const bytes = Math.min(size === 0 || size >= 0xfff00000 ? Infinity : size, file.size - at - 8);
      return waveSource(file, format, at + 8, bytes);
    }
    at += 8 + size + (size % 2);
  }
  throw new HearingError("notSound");
}

function readFormat(chunk) {
  const extensible = chunk.getUint16(8, true) === 0xfffe;
  if (extensible && chunk.byteLength < 34) throw new HearingError("notSound");
  const code = chunk.getUint16(extensible ? 32 : 8, true);
  const found = { channels: chunk.getUint16(10, true), rate: chunk.getUint32(12, true), bits: chunk.getUint16(22, true) };
  return { ...found, reader: READERS[`${code}/${found.bits}`] };
}

function waveSource(file, { channels, rate, bits, reader }, start, bytes) {
  if (!reader || !channels || rate < 1000 || rate > 768000) throw new HearingError("unknownWave");
  const step = bits / 8, frame = step * channels;
  return {
    rate,
    samples: Math.floor(bytes / frame),
    async read(begin, end) {
      const view = new DataView(await file.slice(start + begin * frame, start + end * frame).arrayBuffer());
      const out = new Float32Array(end - begin);
      for (let i = 0, at = 0; i < out.length; i++) {
        let sum = 0;
        for (let c = 0; c < channels; c++, at += step) sum += reader(view, at);
        out[i] = sum / channels;
        if (!Number.isFinite(out[i])) throw new HearingError("damaged");
      }
      return out;
    },
  };
}

// The sample rate that the header of a compressed file names; 48000 where it is not found.
export function sniffRate(bytes) {
  const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const find = (word, from = 0) => {
    const codes = Array.from(word, (c) => c.charCodeAt(0));
    for (let i = from; i + codes.length <= bytes.length; i++) if (codes.every((c, k) => bytes[i + k] === c)) return i;
    return -1;
  };
  const found = [
    () => (find("fLaC") === 0 && v.byteLength > 21 ? (v.getUint16(18) << 4) | (v.getUint8(20) >> 4) : 0),
    () => (find("OggS") === 0 && find("\x01vorbis") > 0 ? v.getUint32(find("\x01vorbis") + 12, true) : 0),
    () => (find("OggS") === 0 && find("\x7fFLAC") > 0 ? sniffRate(bytes.subarray(find("fLaC"))) : 0),
    () => (find("ftyp") === 4 && find("mp4a") > 0 ? v.getUint16(find("mp4a") + 28) : 0),
    () => mpegRate(bytes),
  ];
  for (const rate of found) {
    try {
      const hertz = rate();
      if (hertz >= 8000 && hertz <= 96000) return hertz;
    } catch {
      // the header is shorter than it should be
    }
  }
  return 48000;
}

function mpegRate(bytes) {
  let at = 0;
  if (bytes[0] === 0x49 && bytes[1] === 0x44 && bytes[2] === 0x33) { // ID3v2
    at = 10 + ((bytes[6] & 127) << 21) + ((bytes[7] & 127) << 14) + ((bytes[8] & 127) << 7) + (bytes[9] & 127);
  }
  for (; at + 3 < bytes.length; at++) {
    if (bytes[at] !== 0xff || (bytes[at + 1] & 0xe0) !== 0xe0) continue;
    const version = (bytes[at + 1] >> 3) & 3, layer = (bytes[at + 1] >> 1) & 3, code = (bytes[at + 2] >> 2) & 3;
    if (version === 1 || layer === 0 || code === 3) continue;
    return [44100, 48000, 32000][code] / [4, 1, 2, 1][version];
  }
  return 0;
}

// {rate, samples} of a compressed file, mono. `seconds` is how long it is said to be, if that is known.
export async function decode(file, seconds) {
  const head = new Uint8Array(await file.slice(0, 1 << 20).arrayBuffer());
  const rate = sniffRate(head);
  if (seconds * rate * 8 > MOST_DECODED) throw new HearingError("tooLong");
  return { rate, samples: await unpack(file, rate) };
}

// The mono samples of a compressed file or a part of one.
export async function unpack(blob, rate) {
  let audio;
  try {
    audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new HearingError("notSound");
  }
  const samples = new Float32Array(audio.length);
  for (let c = 0; c < audio.numberOfChannels; c++) {
    const channel = audio.getChannelData(c);
    for (let i = 0; i < samples.length; i++) samples[i] += channel[i] / audio.numberOfChannels;
  }
  return samples;
}

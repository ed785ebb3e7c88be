// Hears beside the page, so that the page never waits. One job at a time; every message carries the ticket
// of its job, and what comes for another job is dropped.

import { priorOf } from "./bars.js";
import { FileBeats, LiveBeats } from "./beats.js";
import { FileHearing, LiveHearing } from "./hearing.js";
import { loadModel } from "./model.js";
import { Resampler } from "./resample.js";
import { HearingError } from "./states.js";
import { openWave } from "./waves.js";

const BLOCK = 10; // seconds that are read at a time

let model = null;
let ticket = 0;
let waiting = null; // what takes the next block of a file that is read in parts
let live = null; // {hearing, beats, resampler, busy, over}

const tell = (kind, values = {}) => postMessage({ kind, ticket, ...values });
const pause = () => new Promise((resolve) => setTimeout(resolve)); // lets messages in

function fail(error) {
  const known = error instanceof HearingError;
  tell("failed", known ? { key: error.key, values: error.values } : { key: "fault", values: { text: String(error) } });
}

async function hearFile(source, mine) {
  const rate = model.about.sample_rate;
  const resampler = new Resampler(source.rate, rate);
  const samples = resampler.length(source.samples), hearing = new FileHearing(model, samples);
  const beats = model.beats && new FileBeats(model.beats, samples);
  const hear = async (block) => {
    await hearing.push(block);
    await beats?.push(block);
  };
  const size = Math.round(BLOCK * source.rate);
  for (let at = 0; at < source.samples; at += size) {
    const block = await source.read(at, Math.min(source.samples, at + size));
    await hear(resampler.push(block));
    await pause();
    if (ticket !== mine) return;
    tell("state", { state: hearing.state() });
  }
  await hear(resampler.finish());
  const state = await hearing.finish();
  state.beats = (await beats?.finish(priorOf(state.answer, model.about.classes))) ?? null;
  if (ticket === mine) tell("state", { state });
}

async function pump(job) {
  if (job.busy) return;
  job.busy = true;
  try {
    while (ticket === job.ticket && (await job.hearing.advance())) {
      tell("state", { state: withBeats(job, job.hearing.state()) });
      await pause();
    }
    if (ticket === job.ticket && (await job.beats?.advance(priorOf(job.hearing.answer, model.about.classes)))) {
      tell("state", { state: withBeats(job, job.hearing.state()) });
    }
    if (job.over && ticket === job.ticket) tell("state", { state: withBeats(job, await job.hearing.finish()) });
  } catch (error) {
    fail(error);
  }
  job.busy = false;
}

const withBeats = ({ beats }, state) => ({ ...state, beats: beats?.found ?? null, bytes: state.bytes + (beats?.bytes ?? 0) });

const orders = {
  async load({ base }) {
    model = await loadModel(base, (share) => tell("loading", { share }));
    tell("ready", { about: { ...model.about, beats: model.beats !== null } });
  },
  wave: async ({ file, ticket: mine }) => hearFile(await openWave(file), mine),
  samples: ({ samples, rate, ticket: mine }) =>
    hearFile({ rate, samples: samples.length, read: async (a, b) => samples.subarray(a, b) }, mine),
  // A file that the page unpacks part by part: it is asked for what is needed next.
  parts({ rate, samples, ticket: mine }) {
    const read = (begin, end) =>
      new Promise((resolve) => {
        waiting = resolve;
        tell("want", { begin, end });
      });
    return hearFile({ rate, samples, read }, mine);
  },
  block: ({ samples }) => waiting(samples),
  live({ rate, settings, ticket: mine }) {
    const resampler = new Resampler(rate, model.about.sample_rate);
    const hearing = new LiveHearing(model, settings), beats = model.beats && new LiveBeats(model.beats);
    live = { ticket: mine, hearing, beats, resampler, busy: false, over: false };
  },
  async audio({ samples }) {
    const block = live.resampler.push(samples);
    live.hearing.push(block);
    live.beats?.push(block);
    await pump(live);
  },
  async end() { // the microphone is off: what came before is still heard
    live.over = true;
    await pump(live);
  },
  stop() {
    live = null;
  },
};

addEventListener("message", async ({ data }) => {
  if (["wave", "samples", "parts", "live", "stop"].includes(data.order)) [ticket, live] = [data.ticket, null];
  else if (["audio", "end"].includes(data.order) && live?.ticket !== data.ticket) return;
  else if (data.order === "block" && ticket !== data.ticket) return;
  try {
    await orders[data.order](data);
  } catch (error) {
    if (data.ticket === undefined || data.ticket === ticket) fail(error);
  }
});

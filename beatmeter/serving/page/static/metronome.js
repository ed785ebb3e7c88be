// Lights and clicks for beats whose times are known: {times, places} in seconds of a clock that is asked.

import { ahead, beatAt } from "./beats.js";

const SOON = 0.15; // seconds in advance that clicks are given to the sound card

export class Metronome {
  // `show(beat)` is called with every other beat that sounds, {place, size} or null.
  constructor(show) {
    Object.assign(this, { show, found: null, clock: null, click: false, goesOn: false });
    this.context = null;
    this.shown = this.all = null;
    this.known = -Infinity; // until when `all` goes on
    this.clicked = -Infinity;
    this.frame = 0;
  }

  // Beats of a clock, a function that gives seconds; `goesOn`: they are continued as the last ones went.
  follow(found, clock, goesOn) {
    if (found !== this.found) this.known = -Infinity;
    Object.assign(this, { found, clock, goesOn });
    if (!this.frame) this.tick();
  }

  stop() {
    cancelAnimationFrame(this.frame);
    Object.assign(this, { frame: 0, found: null, clicked: -Infinity });
    this.light(null);
  }

  set sounds(on) { // by a hand of the user: browsers let no page make a sound before
    this.click = on;
    this.context ??= on ? new AudioContext() : null;
    this.context?.resume();
  }

  tick() {
    this.frame = requestAnimationFrame(() => this.tick());
    if (!this.found) return;
    const now = this.clock();
    if (now + SOON > this.known) this.foresee(now + SOON + 1);
    const beat = beatAt(this.all, now);
    this.light(beat && now - beat.time < 2.5 ? beat : null);
    if (this.click) this.sound(this.all, now);
  }

  foresee(until) {
    const more = this.goesOn ? ahead(this.found, until) : [];
    this.known = this.goesOn ? until : Infinity;
    this.all = {
      times: [...this.found.times, ...more.map((b) => b.time)],
      places: [...this.found.places, ...more.map((b) => b.place)],
    };
  }

  light(beat) {
    if (beat?.time === this.shown?.time && beat?.place === this.shown?.place) return;
    this.shown = beat;
    this.show(beat);
  }

  sound({ times, places }, now) {
    if (now < this.clicked - 1) this.clicked = now; // somebody went back
    times.forEach((time, i) => {
      if (time <= now || time > now + SOON || time <= this.clicked + 0.1) return;
      this.clicked = time;
      const { context } = this, at = context.currentTime + time - now;
      const tone = new OscillatorNode(context, { frequency: places[i] === 1 ? 1760 : 1175 });
      const gain = new GainNode(context, { gain: 0 });
      gain.gain.setValueAtTime(0.4, at);
      gain.gain.exponentialRampToValueAtTime(0.001, at + 0.05);
      tone.connect(gain).connect(context.destination);
      tone.start(at);
      tone.stop(at + 0.06);
    });
  }
}

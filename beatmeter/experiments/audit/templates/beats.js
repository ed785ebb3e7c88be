(() => {
  const form = document.getElementById("review");
  const cards = [...form.querySelectorAll("article")];
  const [KEEP, DROP] = form.dataset.words.split(",");
  const [STRENGTH_RATE, CURVE_RATE] = form.dataset.rates.split(",").map(Number);
  const SNAP = 0.04; // seconds between the place that is clicked and the onset that is meant
  const CLOSEST = Number(form.dataset.closest); // seconds between two beats
  const STEP = 0.005; // seconds of an arrow key
  const numbers = (text) => (text.trim() ? text.trim().split(" ").map(Number) : []);
  const state = new Map(cards.map((card) => [card, {
    start: Number(card.dataset.start),
    seconds: Number(card.dataset.seconds),
    beats: card.dataset.beats.trim().split(" ").filter(Boolean).map((text) => text.split(":").map(Number)),
    onsets: numbers(card.dataset.onsets),
    decision: "",
    shown: form.dataset.shown !== "",
  }]));
  const find = (card, name) => card.querySelector(name);
  const doubted = (card, time) => card.dataset.time !== "" && Math.abs(time - Number(card.dataset.time)) < 0.001;
  const newTime = (card) => {
    const said = state.get(card).decision;
    return said !== "" && said !== KEEP && said !== DROP ? Number(said) : null;
  };
  // What all cards of its track decide of what a card shows: which annotated beats stay, and where new ones are,
  // [time, place in the bar, card]; place 0: to be counted.
  const sameTrack = (card) => cards.filter((other) => other.dataset.id === card.dataset.id);
  const decided = (card) => {
    const { beats } = state.get(card);
    const others = sameTrack(card).filter((other) => !["", KEEP].includes(state.get(other).decision));
    const place = (time) => (beats.find(([at]) => Math.abs(at - time) < 0.001) || [0, 0])[1];
    return {
      stays: beats.map(([at]) => !others.some((other) => doubted(other, at))),
      added: others.filter((other) => newTime(other) !== null).map((other) => [newTime(other), place(Number(other.dataset.time || NaN)), other]),
    };
  };
  const decidedBeats = (card) => {
    const { stays, added } = decided(card);
    return [...state.get(card).beats.filter((beat, i) => stays[i]), ...added].sort((a, b) => a[0] - b[0]);
  };
  const tooClose = (card) => {
    const time = newTime(card);
    return time !== null && decidedBeats(card).filter(([at]) => Math.abs(at - time) < CLOSEST).length > 1;
  };

  // the picture
  const percent = (card, time) => `${(100 * (time - state.get(card).start)) / state.get(card).seconds}%`;
  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };
  const mark = (card, time, text, ...classes) => {
    const made = document.createElement("div");
    made.className = ["mark", ...classes].join(" ");
    made.style.left = percent(card, time);
    made.textContent = text;
    return made;
  };
  const line = (values, rate) => values.map((value, i) => `${i ? "L" : "M"}${((1000 * i) / rate).toFixed(1)} ${100 - value}`).join("");
  const draw = (card) => {
    const { beats, start, onsets, seconds, shown } = state.get(card);
    const strip = find(card, ".strip");
    const picture = svg("svg", { viewBox: `0 0 ${1000 * seconds} 100`, preserveAspectRatio: "none" });
    picture.append(svg("path", { d: `${line(onsets, STRENGTH_RATE)}V100H0Z` }));
    if (shown) picture.append(svg("path", { class: "heard", d: line(numbers(card.dataset.heard), CURVE_RATE) }));
    const made = [picture];
    if (card.dataset.gap) {
      const [from, to] = numbers(card.dataset.gap);
      const gap = document.createElement("div");
      gap.className = "gap";
      gap.style.left = percent(card, from);
      gap.style.right = `calc(100% - ${percent(card, to)})`;
      made.push(gap);
    }
    const { stays, added } = decided(card);
    beats.forEach(([at, place], i) => {
      const classes = [place === 1 ? "down" : "", doubted(card, at) ? "doubt" : "", stays[i] ? "" : "off"];
      made.push(mark(card, at, place || "", ...classes));
    });
    if (shown && card.dataset.suggested) made.push(mark(card, Number(card.dataset.suggested), "", "guess"));
    for (const [at, , from] of added) {
      if (at >= start && at <= start + seconds) made.push(mark(card, at, from === card ? "here" : "", "new"));
    }
    const head = document.createElement("div");
    head.className = "head";
    strip.replaceChildren(...made, head);
  };
  const told = (card) => {
    const { decision } = state.get(card);
    if (decision === KEEP) return card.dataset.time ? "right" : "no beat missing";
    if (decision === DROP) return "no beat here";
    if (decision === "") return "";
    if (!card.dataset.time) return `add at ${decision}`;
    const by = Math.round(1000 * (Number(decision) - Number(card.dataset.time)));
    return `${Math.abs(by)} ms ${by < 0 ? "earlier" : "later"}`;
  };
  const show = (card) => {
    const { decision, shown } = state.get(card);
    find(card, ".label").textContent = told(card) + (tooClose(card) ? ": too close to another beat" : "");
    find(card, ".label").classList.toggle("wrong", tooClose(card));
    find(card, ".keep").classList.toggle("chosen", decision === KEEP);
    find(card, ".drop")?.classList.toggle("chosen", decision === DROP);
    const button = find(card, ".suggest");
    if (button) {
      const nothing = shown && !card.dataset.suggested;
      button.textContent = nothing ? "Nothing is suggested" : shown ? "Take the suggestion" : "Show the suggestion";
      button.disabled = nothing;
      button.classList.toggle("chosen", shown && decision !== "" && decision === card.dataset.suggested);
    }
    const field = find(card, ".time");
    if (document.activeElement !== field) field.value = newTime(card) === null ? "" : decision;
    draw(card);
  };

  // decisions
  let review = null;
  const decide = (card, decision) => {
    state.get(card).decision = decision;
    sameTrack(card).forEach(show);
    review.keep();
    if (playing && playing.card === card) play(card, true);
  };
  const moveTo = (card, time) => {
    const { start, seconds } = state.get(card);
    const inside = Math.min(Math.max(time, start), start + seconds);
    decide(card, doubted(card, inside) ? KEEP : inside.toFixed(3));
  };
  const snapped = (card, time) => {
    const { start, onsets } = state.get(card);
    let best = null;
    onsets.forEach((value, i) => {
      const at = start + i / STRENGTH_RATE;
      const peak = value >= 5 && value >= (onsets[i - 1] ?? 0) && value > (onsets[i + 1] ?? 0);
      if (peak && Math.abs(at - time) <= SNAP && (best === null || value > best[1])) best = [at, value];
    });
    return best ? best[0] : time;
  };
  const suggest = (card) => {
    if (!state.get(card).shown) {
      state.get(card).shown = true;
      show(card);
      review.keep();
    } else if (card.dataset.suggested) moveTo(card, Number(card.dataset.suggested));
  };

  // sound: the excerpt with a click at every beat, mixed sample by sample, in a loop
  let audio = null;
  let playing = null;
  let wanted = null; // the card that is to play as soon as it is decoded
  const decoded = new Map();
  const samples = async (card) => {
    if (!decoded.has(card)) {
      const bytes = Uint8Array.from(atob(card.dataset.sound.split(",")[1]), (c) => c.charCodeAt(0));
      decoded.set(card, await audio.decodeAudioData(bytes.buffer));
    }
    return decoded.get(card);
  };
  const mixed = (card, music, clicks) => {
    const buffer = new AudioBuffer({ length: music.length, sampleRate: music.sampleRate, numberOfChannels: 1 });
    const wave = buffer.getChannelData(0);
    music.copyFromChannel(wave, 0);
    const { beats, start } = state.get(card);
    const times = clicks === "none" ? [] : clicks === "annotated" ? beats : decidedBeats(card);
    for (const [time, place] of times) {
      const first = Math.round((time - start) * music.sampleRate);
      const pitch = (2 * Math.PI * (place === 1 ? 2000 : 1400)) / music.sampleRate;
      for (let i = Math.max(0, -first); i < 0.03 * music.sampleRate && first + i < wave.length; i += 1) {
        wave[first + i] += 0.4 * Math.sin(pitch * i) * Math.exp(-i / (0.006 * music.sampleRate));
      }
    }
    return buffer;
  };
  const stop = () => {
    wanted = null;
    if (!playing) return;
    playing.source.stop();
    find(playing.card, ".play").textContent = "Play";
    find(playing.card, ".head").style.display = "none";
    playing = null;
  };
  const position = () => (audio.currentTime - playing.begun) % playing.source.buffer.duration;
  const play = async (card, goOn = false) => {
    audio ||= new AudioContext();
    if (audio.state === "suspended") audio.resume();
    wanted = card;
    document.querySelectorAll("audio").forEach((player) => player.pause());
    const music = await samples(card);
    if (wanted !== card) return;
    const from = goOn && playing && playing.card === card ? position() : 0;
    stop();
    const source = new AudioBufferSourceNode(audio, { buffer: mixed(card, music, document.getElementById("clicks").value), loop: true });
    source.connect(audio.destination);
    source.start(0, from);
    playing = { card, source, begun: audio.currentTime - from };
    wanted = card;
    find(card, ".play").textContent = "Stop";
    requestAnimationFrame(follow);
  };
  const follow = () => {
    if (!playing) return;
    const head = find(playing.card, ".head");
    const late = audio.outputLatency || 0;
    head.style.display = "block";
    head.style.left = `${(100 * Math.max(0, position() - late)) / playing.source.buffer.duration}%`;
    requestAnimationFrame(follow);
  };

  // one card after the other
  let current = cards[0];
  const ordered = () => [...form.querySelectorAll("article")];
  const choose = (card, scroll = true) => {
    if (!card) return;
    current?.classList.remove("current");
    current = card;
    card.classList.add("current");
    if (scroll) card.scrollIntoView({ block: "center" });
  };
  const step = (by) => {
    const all = ordered();
    const next = all[all.indexOf(current) + by];
    if (!next) return stop();
    const went = playing !== null || wanted !== null;
    stop();
    choose(next);
    if (went) play(next);
  };
  const settle = (card, decision) => {
    decide(card, decision);
    if (document.getElementById("onward").checked) step(1);
  };
  const undo = (card) => decide(card, "");
  const actions = { keep: (card) => settle(card, KEEP), drop: (card) => settle(card, DROP), suggest, undo };

  cards.forEach((card) => {
    card.addEventListener("pointerdown", () => choose(card, false));
    find(card, ".play").addEventListener("click", () => (playing && playing.card === card ? stop() : play(card)));
    Object.entries(actions).forEach(([name, act]) => find(card, `.${name}`)?.addEventListener("click", (event) => {
      event.target.blur(); // the keys are for the page again
      act(card);
    }));
    find(card, ".strip").addEventListener("click", (event) => {
      const box = find(card, ".strip").getBoundingClientRect();
      const { start, seconds } = state.get(card);
      const time = start + ((event.clientX - box.left) / box.width) * seconds;
      moveTo(card, event.shiftKey ? time : snapped(card, time));
    });
    const field = find(card, ".time");
    field.addEventListener("input", () => {
      const text = field.value.trim().replace(",", ".");
      const good = text === "" || (/^\d+(\.\d*)?$/.test(text) && Number.isFinite(Number(text)));
      field.setCustomValidity(good ? "" : "seconds with a decimal point: 12.345");
      if (good) decide(card, text === "" ? "" : Number(text).toFixed(3));
    });
    find(card, "details").addEventListener("toggle", (event) => {
      const player = find(card, "audio");
      if (event.target.open) player.addEventListener("loadedmetadata", () => { player.currentTime = state.get(card).start; }, { once: true });
    });
  });
  document.addEventListener("play", stop, true);
  document.getElementById("clicks").addEventListener("change", () => { if (playing) play(playing.card, true); });
  document.getElementById("order").addEventListener("change", (event) => {
    const rank = (card) => Number(card.dataset.rank);
    form.append(...(event.target.value === "worst" ? [...cards].sort((a, b) => rank(a) - rank(b)) : cards));
    choose(ordered()[0]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest("input, select, audio, summary");
    if (field && (event.key === "Escape" || (event.key === "Enter" && field.matches("input")))) field.blur();
    else if (field && field.type !== "checkbox") return;
    const at = newTime(current) ?? (current.dataset.time ? Number(current.dataset.time) : null);
    const nudge = (by) => { if (at !== null) moveTo(current, at + by); };
    const keys = {
      " ": () => (playing && playing.card === current ? stop() : play(current)),
      k: () => actions.keep(current),
      d: () => { if (current.dataset.time) actions.drop(current); },
      s: () => suggest(current),
      u: () => undo(current),
      c: () => {
        const select = document.getElementById("clicks");
        select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
        select.dispatchEvent(new Event("change"));
      },
      Enter: () => step(1),
      ArrowDown: () => step(1),
      ArrowUp: () => step(-1),
      ArrowLeft: () => nudge(-STEP),
      ArrowRight: () => nudge(STEP),
    };
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (event.key === "Enter" && event.target.matches("button"))) return;
    event.preventDefault();
    act();
  });

  const ranked = [...cards].sort((a, b) => Number(a.dataset.rank) - Number(b.dataset.rank)); // the file is worst first
  review = reviewing({
    form,
    cards: ranked,
    name: (card) => card.dataset.rank,
    values: (card) => [state.get(card).decision, find(card, ".comment").value, state.get(card).shown],
    restore: (card, [decision, comment, shown]) => {
      Object.assign(state.get(card), { decision, shown: shown || state.get(card).shown });
      find(card, ".comment").value = comment;
    },
    decision: (card) => state.get(card).decision,
    row: (card) => {
      const { id, kind, time, suggested, quality } = card.dataset;
      return [id, kind, time, suggested, quality, state.get(card).decision, find(card, ".comment").value];
    },
  });
  cards.forEach(show);
  const first = ordered().find((card) => state.get(card).decision === "") || cards[0];
  choose(first, first !== cards[0]);
})();

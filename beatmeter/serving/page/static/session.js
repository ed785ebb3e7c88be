// What the page is doing, as one value that events move on. Every hearing has a ticket: what comes late from
// an earlier one changes nothing.
//
// mode: loading, ready, asking (for the microphone), listening, finishing, reading (a file), done, broken.

export const START = Object.freeze({
  mode: "loading", ticket: 0, share: 0, about: null, name: null, source: null, state: null, problem: null,
});

const BUSY = ["asking", "listening", "finishing", "reading"];

export const busy = (session) => BUSY.includes(session.mode);
export const usable = (session) => session.about !== null;
export const wantsMicrophone = (session) => session.mode === "asking" || session.mode === "listening";

function begin(session, mode, source, name) {
  return { ...session, mode, source, name, ticket: session.ticket + 1, state: null, problem: null };
}

const steps = {
  loading: (session, { share }) => (session.mode === "loading" ? { ...session, share } : session),
  ready: (session, { about }) => ({ ...session, mode: "ready", about }),
  listen: (session) => (usable(session) ? begin(session, "asking", "live", null) : session),
  open: (session, { name }) => (usable(session) ? begin(session, "reading", "file", name) : session),
  granted: (session) => (session.mode === "asking" ? { ...session, mode: "listening" } : session),
  state(session, { state }) {
    if (!["listening", "finishing", "reading"].includes(session.mode)) return session;
    return { ...session, state, mode: state.done ? "done" : session.mode };
  },
  // Of a microphone what was heard is finished; of a file no more is read.
  stop(session) {
    if (session.mode === "listening") return { ...session, mode: "finishing" };
    if (session.mode === "asking") return { ...session, mode: "ready", ticket: session.ticket + 1 };
    if (session.mode !== "reading") return session;
    return { ...session, mode: session.state ? "done" : "ready", ticket: session.ticket + 1 };
  },
  failed(session, { key, values }) {
    const problem = { key, values };
    if (!usable(session)) return { ...session, mode: "broken", problem };
    const kept = session.source === "live" ? session.state : null; // half a file is no answer for it
    return { ...session, mode: kept ? "done" : "ready", state: kept, problem, ticket: session.ticket + 1 };
  },
};

export function step(session, event) {
  if (event.ticket !== undefined && event.ticket !== session.ticket) return session;
  return steps[event.type](session, event);
}

// The headline and the bars, always of one and the same answer: {answer, bars: [{name (null: no meter),
// value}], whole} or null. `whole`: the answer is of a whole file, not of what was heard so far.
export function shown(session) {
  const answer = session.state?.answer;
  if (!answer) return null;
  const bars = session.about.classes.map((name, i) => ({ name, value: answer.scores[i] }));
  if (answer.heard !== null) bars.push({ name: null, value: 1 - answer.heard });
  return { answer, bars, whole: session.source === "file" && session.state.done };
}

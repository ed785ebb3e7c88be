// The settings of the page. They live in the part of the address behind #, which browsers send nowhere; a
// link holds them and nothing else.

import { LANGUAGES } from "./texts.js";

export const CHOICES = {
  lang: LANGUAGES,
  theme: ["auto", "light", "dark"],
  window: ["5", "10", "20", "30"], // seconds that the model hears at once, of the microphone
  calm: ["10", "30", "90"], // seconds that a meter is expected to last
};

export function defaults(languages, stream) {
  const wanted = languages.map((l) => l.slice(0, 2).toLowerCase()).find((l) => LANGUAGES.includes(l));
  const seconds = (name, value, other) => (CHOICES[name].includes(String(value)) ? String(value) : other);
  return {
    lang: wanted ?? "en",
    theme: "auto",
    window: seconds("window", stream?.window, "10"),
    calm: seconds("calm", stream?.duration, "30"),
  };
}

// Settings of an address; what is unknown or not possible is left at its default.
export function read(hash, base) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const found = { ...base };
  for (const [name, choices] of Object.entries(CHOICES)) {
    if (choices.includes(given.get(name))) found[name] = given.get(name);
  }
  return found;
}

export function write(settings) {
  return `#${new URLSearchParams(Object.keys(CHOICES).map((name) => [name, settings[name]]))}`;
}

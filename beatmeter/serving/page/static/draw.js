// The bars and the timeline.

const SVG = "http://www.w3.org/2000/svg";

export const clock = (seconds) => {
  const whole = Math.floor(seconds + 1e-6);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

export function element(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS(SVG, name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// One row for every meter: name, bar, value. Rows are kept and moved, so that bars glide.
export function drawBars(list, bars, chosen, nameOf, format) {
  while (list.children.length > bars.length) list.lastChild.remove();
  bars.forEach(({ name, value }, i) => {
    if (!list.children[i]) {
      const fill = element("span", { class: "fill" });
      list.append(
        element(
          "li", {},
          element("span", { class: "name" }),
          element("span", { class: "track", "aria-hidden": "true" }, fill),
          element("span", { class: "value" }),
        ),
      );
    }
    const row = list.children[i];
    row.className = `${name === null ? "none" : `m${i % 6}`}${name === chosen ? " chosen" : ""}`;
    row.children[0].textContent = nameOf(name);
    row.children[1].firstChild.style.width = `${(100 * value).toFixed(1)}%`;
    row.children[2].textContent = format(value);
  });
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

// Segments {start, end, meter} over `seconds`; `marks` are times with a line. Labels only where they fit.
export function drawTimeline(svg, { segments, seconds, at, classes, words, short }) {
  const width = Math.max(200, svg.clientWidth || 600), height = 76, top = 4, tall = 44;
  const x = (s) => (s / Math.max(seconds, 1e-9)) * width;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const parts = segments.map((s) => {
    const left = x(s.start), wide = Math.max(1, x(s.end) - left);
    const kind = s.meter === null ? "none" : `m${classes.indexOf(s.meter) % 6}`;
    const box = element("svg:rect", { x: left, y: top, width: wide, height: tall, class: kind });
    box.append(element("svg:title", {}, `${clock(s.start)} - ${clock(s.end)}: ${words(s)}`));
    const label = s.meter === null ? short : s.meter;
    const group = element("svg:g", {}, box);
    if (wide > 9 * label.length + 8) {
      const place = { x: left + wide / 2, y: top + tall / 2 + 6, "text-anchor": "middle", class: `label ${kind}` };
      group.append(element("svg:text", place, label));
    }
    return group;
  });
  const step = STEPS.find((s) => x(s) >= 56) ?? STEPS.at(-1);
  for (let t = 0; t <= seconds + 1e-6; t += step) {
    const anchor = x(t) < 14 ? "start" : x(t) > width - 20 ? "end" : "middle";
    parts.push(element("svg:line", { x1: x(t), x2: x(t), y1: top + tall, y2: top + tall + 5, class: "tick" }));
    parts.push(element("svg:text", { x: x(t), y: height - 6, "text-anchor": anchor, class: "time" }, clock(t)));
  }
  if (at !== null) parts.push(element("svg:line", { x1: x(at), x2: x(at), y1: 0, y2: top + tall + 4, class: "now" }));
  svg.replaceChildren(...parts);
}

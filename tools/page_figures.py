"""What the page costs while it listens: real music is played to the microphone of a headless Chromium.

    python tools/page_figures.py FOLDER OF MUSIC --minutes 10
    python tools/page_figures.py FOLDER OF MUSIC --minutes 2 --no-beats

Printed: the size of the page's folder; of a core, the share that all of Chromium takes (Linux); how long
after its sound every answer comes; whether one was left out; the sound and states that are held, and the
memory of the process of the page, early and late; requests to other origins, which are refused. How far
answers are from Python is compared by tests/serving/page/test_page_hears_as_python.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from beatmeter.audio.decode import load
from beatmeter.cli.page import DEFAULT, page_of
from beatmeter.serving.page.server import PageServer

RATE = 48_000
CLIPS = 5
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# keeps when sound went to the worker and when its words came back
SPY = """
window.sent = { samples: 0, began: Infinity };
window.said = [];
const Plain = Worker;
window.Worker = class extends Plain {
  constructor(...words) {
    super(...words);
    this.addEventListener("message", ({ data }) => {
      const { kind, state } = data;
      if (kind !== "state") return;
      const late = performance.now() / 1000 - window.sent.began - state.answered;
      const beats = state.beats ? state.beats.times.length : 0;
      window.said.push([state.answered, late, state.bytes, state.skipped, beats]);
    });
  }
  postMessage(message, more) {
    if (message.order === "live") window.sent.rate = message.rate;
    if (message.order === "audio") {
      window.sent.samples += message.samples.length;
      const now = performance.now() / 1000 - window.sent.samples / window.sent.rate;
      window.sent.began = Math.min(window.sent.began, now);
    }
    super.postMessage(message, more);
  }
};
"""


@dataclass
class Figures:
    """What was seen: `answers` (time, late, bytes, skipped, beats), core seconds and memory by time."""

    answers: list[list[float]] = field(default_factory=list)
    cores: list[tuple[float, float]] = field(default_factory=list)  # wall, processor seconds
    memory: list[tuple[float, float]] = field(default_factory=list)  # wall, MB of the page's process
    elsewhere: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def sound(folder: Path, out: Path) -> float:
    """A file of a few pieces of `folder`, for the microphone; seconds."""
    kinds = {".ogg", ".flac", ".wav", ".mp3"}
    files = sorted(p for p in folder.rglob("*") if p.suffix in kinds)
    if not files:
        raise SystemExit(f"error: no music in {folder}")
    waves = [load(file, RATE) for file in files[:: max(1, len(files) // CLIPS)][:CLIPS]]
    wave = np.concatenate(waves)
    soundfile.write(out, wave, RATE, subtype="PCM_16")
    return len(wave) / RATE


def descendants() -> dict[int, str]:
    """Processes that come from this one, with their names."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        parents[int(stat.parent.name)], names[int(stat.parent.name)] = int(rest[1]), name
    found: dict[int, str] = {}
    new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new and pid not in found}
        found |= {pid: names[pid] for pid in new}
    return found


def used(figures: Figures) -> None:
    """Processor seconds of all of the browser, and the memory of its largest page."""
    ticks, total, largest = os.sysconf("SC_CLK_TCK"), 0.0, 0.0
    for pid, name in descendants().items():
        if not name.startswith("chrom"):
            continue
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            renders = b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        total += (int(stat[11]) + int(stat[12])) / ticks
        largest = max(largest, int(stat[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6) if renders else largest
    figures.cores.append((time.monotonic(), total))
    figures.memory.append((time.monotonic(), largest))


def listen(server: PageServer, wave: Path, minutes: float) -> Figures:
    """Let the page listen for so long."""
    from playwright.sync_api import sync_playwright

    figures = Figures()
    program = os.environ.get("BEATMETER_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    names = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream", "no-sandbox", "mute-audio")
    switches = [*(f"--{name}" for name in names), f"--use-file-for-fake-audio-capture={wave}"]

    def gate(route: Any) -> None:
        if route.request.url.startswith(server.address):
            route.continue_()
        else:
            figures.elsewhere.append(route.request.url)
            route.abort()

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=switches)
        context = browser.new_context(permissions=["microphone"])
        context.route("**/*", gate)
        context.add_init_script(SPY)
        page = context.new_page()
        page.on("pageerror", lambda error: figures.faults.append(str(error)))
        page.goto(server.address)
        page.locator("#listen:enabled").click(timeout=120_000)
        time.sleep(5)  # loading is not listening
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            used(figures)
            time.sleep(5)
            figures.answers += page.evaluate("said.splice(0)")
        used(figures)
        page.click("#stop")
        browser.close()
    return figures


def tell(figures: Figures, size: int) -> None:
    """Print it."""
    (began, before), (ended, after) = figures.cores[0], figures.cores[-1]
    first = {}  # of every answer the first time that it was there
    for at, late, *_ in figures.answers:
        first.setdefault(at, late)
    late = np.array([value for at, value in sorted(first.items()) if at > 0])
    bytes_held = np.array([row[2] for row in figures.answers]) / 1e6
    third, memory = len(bytes_held) // 3, np.array([mb for _, mb in figures.memory])
    part, step = len(memory) // 3, np.diff(sorted(first)).max()
    skipped, beats = int(max(row[3] for row in figures.answers)), sum(row[4] > 0 for row in figures.answers)
    early, last = bytes_held[:third].max(), bytes_held[-third:].max()
    middle, end = memory[part : 2 * part].mean(), memory[-part:].mean()
    wall = ended - began
    for name, text in (
        ("folder", f"{size / 1e6:.1f} MB"),
        ("processor", f"{(after - before) / wall:.3f} of a core in {wall:.0f} s"),
        ("answers", f"{len(late)}; {np.median(late):.2f} s after their sound, {late.max():.2f} s at most"),
        ("left out", f"{skipped}; longest step {step:.1f} s"),
        ("held", f"{bytes_held.max():.2f} MB at most; first third {early:.2f}, last {last:.2f}"),
        (
            "process",
            f"{memory.max():.0f} MB at most; mean of the second third {middle:.0f}, of the last {end:.0f}",
        ),
        ("beats", f"found in {beats} of {len(figures.answers)} states"),
        (
            "elsewhere",
            f"{len(figures.elsewhere)} requests; {len(figures.faults)} errors {figures.faults[:1]}",
        ),
    ):
        print(f"{name:13} {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("music", type=Path, help="A folder of music.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--no-beats", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beatmeter-figures-") as name:
        wave = Path(name) / "microphone.wav"
        seconds = sound(given.music, wave)
        files = page_of(given.model, None, not given.no_beats)
        print(f"microphone    {seconds:.0f} s of music, over and over")
        with PageServer(files) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            figures = listen(server, wave, given.minutes)
            server.shutdown()
    tell(figures, sum(map(len, files.values())))


if __name__ == "__main__":
    main()

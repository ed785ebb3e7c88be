"""A folder of everything that a folder of music should not hold, through the command line: what can be used
has features, the rest is listed with its reason, and names do no harm anywhere. BEATMETER_FULL=1 makes the
long file 8 hours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from meterfolders import music
from waiting import PATIENCE

from beatmeter.store import list_stores
from beatmeter.store.verify import verify

FULL = bool(int(os.environ.get("BEATMETER_FULL", "0")))
SPECTRAL = ("--set", "features.backbone=spectral", "--set", "features.window=2", "--device", "cpu")
ODD = [
    b"two  words.wav",
    b"new\nline.wav",
    b"caf\xe9-\xff.wav",
    b"-rf.wav",
    b"$(touch pwned).wav",
    b"100%s{0}.wav",
    "日本 \u202e.wav".encode(),
]


def beatmeter(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """In a process of its own, whose output is a pipe of bytes."""
    return subprocess.run(
        [sys.executable, "-m", "beatmeter", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )


def write(path: bytes | Path, wave: np.ndarray, rate: int, subtype: str = "PCM_16") -> None:
    soundfile.write(os.fsencode(path), wave, rate, subtype=subtype, format="WAV")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, dict[str, str]]:
    """The folder, how many files can be used, and of the others a word of the reason by name."""
    root = tmp_path_factory.mktemp("hostile") / "in"
    root.mkdir()
    top = os.fsencode(root)
    for n, name in enumerate(ODD):
        write(top + b"/" + name, music(n, 1.5, 24_000), 24_000)
    wave = music(50, 2.0, 192_000)
    write(root / "surround.wav", np.stack([wave] * 8, 1), 192_000, "PCM_24")
    write(root / "clipped.wav", np.clip(40 * music(51, 2.0, 44_100), -1, 1), 44_100)
    write(root / "over.wav", 30 * music(52, 2.0, 44_100), 44_100, "FLOAT")
    write(root / "offset.wav", 0.5 + 0.01 * music(53, 2.0, 44_100), 44_100)
    usable = len(ODD) + 4
    bad = {"nan.wav": "not finite", "inf.wav": "not finite", "huge.wav": "full scale"}
    for name, value in zip(bad, (np.nan, np.inf, 1e30), strict=True):
        wave = music(60, 2.0, 24_000).copy()
        wave[30_000] = value
        write(root / name, wave, 24_000, "FLOAT")
    (root / "zero.flac").touch()
    (root / "text.mp3").write_text("this is no music\n" * 100)
    soundfile.write(root / "cut.mp3", music(61, 6.0, 44_100), 44_100)
    (root / "cut.mp3").write_bytes((root / "cut.mp3").read_bytes()[:20_000])
    write(root / "one.wav", np.array([0.5]), 24_000)
    write(root / "silence.wav", np.zeros(48_000), 24_000)
    os.mkfifo(root / "pipe.wav")
    (root / "self.wav").symlink_to(root / "self.wav")
    (root / "dangling.wav").symlink_to(root / "nowhere.wav")
    (root / "directory.wav").mkdir()
    deep = root / "loop" / "deeper"
    deep.mkdir(parents=True)
    (deep / "up").symlink_to(root, target_is_directory=True)
    with (root / os.fsdecode(b"bro\xffken\n.ogg")).open("wb") as file:
        file.write(b"OggS" + bytes(500))
    bad |= {
        "zero.flac": "empty",
        "text.mp3": "holds no MPEG audio",
        "cut.mp3": "truncated",
        "one.wav": "sample",
        "silence.wav": "silent",
        "pipe.wav": "not a regular",
    }
    bad |= {
        "self.wav": "symbolic link",
        "dangling.wav": "no file",
        "bro\\udcffken\\n.ogg": "checksum of an Ogg page",
    }
    return root, usable, bad


def test_everything_at_once(folder: tuple[Path, int, dict[str, str]], tmp_path: Path) -> None:
    root, usable, bad = folder
    done = beatmeter("extract", root, *SPECTRAL, "--cache", tmp_path / "cache", "--jobs", "2", cwd=tmp_path)
    said = done.stdout.decode()
    assert done.returncode == 1, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert f"{usable} of {usable + len(bad)} tracks have features" in said
    reasons = {
        line.split(": ", 2)[1]: line.split(": ", 2)[2]
        for line in said.splitlines()
        if line.startswith("failed: ")
    }
    assert set(reasons) == set(bad)
    assert all(bad.values())
    for name, word in bad.items():
        assert word in reasons[name], (name, reasons[name])
    assert not list(tmp_path.glob("pwned"))
    (store,) = list_stores(tmp_path / "cache")
    assert verify(store.path, full=True).sound  # type: ignore[union-attr]
    snapshot = store.snapshot()  # type: ignore[union-attr]
    assert all(
        np.isfinite(rows.values).all() for key in snapshot.keys for rows in snapshot.read(key).pooled.values()
    )
    again = beatmeter("extract", root, *SPECTRAL, "--cache", tmp_path / "cache", cwd=tmp_path)
    assert f"0 to extract, {usable} present".encode() in again.stderr
    listed = beatmeter("cache", "failures", tmp_path / "cache", "--json", cwd=tmp_path)
    assert (
        len(json.loads(listed.stdout)) == len(bad) - 4
    )  # those without bytes have no key to remember them by
    assert b"Traceback" not in beatmeter("cache", "failures", tmp_path / "cache", cwd=tmp_path).stderr


def test_a_table_may_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    home, secret = tmp_path / "dataset", tmp_path / "secret"
    for place in (home / "FMA", secret):
        place.mkdir(parents=True)
        write(place / "1.wav", music(1 if place == secret else 2, 2.0, 24_000), 24_000)
    rows = [
        "filename,label,meter",
        "/FMA/1.wav,three,3",
        "/../secret/1.wav,three,3",
        f"{secret}/1.wav,four,4",
        "/FMA/../../secret/1.wav,four,4",
    ]
    for split in ("train", "val", "test"):
        (home / f"data_{split}_4_classes.tab").write_text(
            "\n".join(rows if split == "train" else rows[:1]) + "\n"
        )
    done = beatmeter("extract", home, *SPECTRAL, "--cache", tmp_path / "cache", cwd=tmp_path)
    assert b"Traceback" not in done.stderr
    assert b"1 of 1 track have features" in done.stdout, (done.stdout, done.stderr)
    assert b"3 rows" in done.stderr
    (store,) = list_stores(tmp_path / "cache")
    assert len(store.keys()) == 1  # type: ignore[union-attr]


LONG = """
import resource, sys
from pathlib import Path
import torch
from beatmeter.schema import Track
from beatmeter.features.service import FeatureService
from beatmeter.settings import FeatureConfig
torch.set_num_threads(1)
config = FeatureConfig(cache=sys.argv[1], backbone="spectral", poolings=("stats", "lag"), window=2)
service = FeatureService(config, torch.device("cpu"))
for name in sys.argv[2:]:
    store, keys, failed = service.ensure([Track(name, Path(name))], report=lambda text: None)
    assert not failed, failed
    print(store.snapshot().lengths()[0] / 24000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(len(store.keys()), store.snapshot().read(keys[name]).samples)
"""


HEARD = """
import resource, sys
from pathlib import Path
import torch
from beatmeter.serving.models import SHIPPED
from beatmeter.serving.predictor import Predictor
torch.set_num_threads(1)
predictor = Predictor.load(SHIPPED / "spectral-lag")
for name in sys.argv[1:]:
    ((_, answer),) = predictor.predict_files([Path(name)])
    times, answers = predictor.hear(Path(name))
    assert len(times) == len(answers)
    assert abs(times[-1, 1] - answer.seconds) < 1e-6
    print(answer.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_minutes(path: Path, minutes: float) -> None:
    minute = (music(1, 60.0, 8_000) * 3).clip(-1, 1)
    with soundfile.SoundFile(path, "w", 8_000, 1, subtype="PCM_U8") as file:
        for _ in range(round(minutes)):
            file.write(minute)


def growth(script: str, *arguments: str | Path) -> tuple[list[float], float]:
    """The first number of every line that a child prints, and by how many bytes its most memory grew from the
    first to the last."""
    direct = {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "1000000",
    }  # freed blocks go back at once: what is counted is in use
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=None if FULL else PATIENCE,
        env={**os.environ, **direct},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [float(line[0]) for line in lines], (int(lines[-1][1]) - int(lines[0][1])) * 1024


def test_a_file_of_hours_is_heard_in_the_memory_of_five_minutes(tmp_path: Path) -> None:
    first, minutes = 5, 480 if FULL else 12
    write_minutes(tmp_path / "short.wav", first)
    write_minutes(tmp_path / "hours.wav", minutes)
    seconds, grown = growth(HEARD, tmp_path / "short.wav", tmp_path / "hours.wav")
    assert seconds == pytest.approx([60 * first, 60 * minutes])
    # its wave alone would be 40 MB more, or 2,736 MB
    assert grown < (150e6 if FULL else 22e6), f"{grown / 1e6:.0f} MB more"


def test_a_file_of_hours_is_streamed_in_flat_memory(tmp_path: Path) -> None:
    hours = 8.0 if FULL else 0.3
    write_minutes(tmp_path / "hours.wav", hours * 60)
    write(tmp_path / "short.wav", (music(1, 60.0, 8_000) * 3).clip(-1, 1)[:400_000], 8_000)
    command = [
        sys.executable,
        "-c",
        LONG,
        str(tmp_path / "cache"),
        str(tmp_path / "short.wav"),
        str(tmp_path / "hours.wav"),
    ]
    direct = {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "1000000",
    }  # freed blocks go back at once: what is counted is in use
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **direct}
    )
    assert done.returncode == 0, done.stderr
    before, after, last = done.stdout.splitlines()
    assert last == f"2 {round(hours * 3600 * 24_000)}"
    grown = (int(after.split()[1]) - int(before.split()[1])) * 1024
    assert grown < 70e6, (
        f"{grown / 1e6:.0f} MB more"
    )  # whole, as float32 at 24 kHz, it would be 104 MB, or 2,765 MB

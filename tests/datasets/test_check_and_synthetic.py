"""`data check` accounts for every file by name; `data synth` makes a set that it finds nothing wrong with."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from counting import Counting
from meterfolders import MeterFolder, build, encode, music

from beatmeter.audio.decode import load
from beatmeter.datasets import check as checking
from beatmeter.datasets import open_dataset
from beatmeter.datasets.check import Report, check
from beatmeter.datasets.splits import split_dataset
from beatmeter.datasets.synth import render
from beatmeter.datasets.synth.clip import METERS
from beatmeter.datasets.synthetic import SynthPlan, _schedule, synthesise
from beatmeter.errors import DataError
from beatmeter.settings import DataConfig, SplitConfig

CLASSES = ("3", "4", "5", "7", "9", "11")


def checked(path: Path, decode: bool = True, jobs: int = 1) -> Report:
    return check(path, DataConfig(path=str(path)), CLASSES, decode, jobs)


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> MeterFolder:
    return build(tmp_path_factory.mktemp("m") / "METER2800")


def kinds(report: Report) -> dict[str, str]:
    return {e.id: e.kind for e in report.dataset.excluded}


def test_every_file_is_accounted_for_by_name(broken: MeterFolder) -> None:
    report = checked(broken.path)
    assert kinds(report) == broken.excluded
    assert {t.id: (t.primary, t.split) for t in report.dataset.tracks} == broken.kept
    assert report.status == 1
    assert sum(report.reasons.values()) + len(report.dataset.tracks) == sum(map(len, broken.rows.values()))
    assert sum(n for _, _, counts in report.counts() for n in counts.values()) == len(broken.kept)
    assert report.seconds == pytest.approx(len(broken.kept) * 2.5 + 5 * 2.5, rel=0.2)
    value = json.loads(json.dumps(report.to_json()))
    assert value["reasons"]["silent"] == 2
    assert len(value["excluded"]) == len(broken.excluded)
    assert value["status"] == 1


def test_what_is_kept_can_be_decoded_and_is_no_silence(broken: MeterFolder) -> None:
    for track in checked(broken.path).dataset.tracks:
        assert np.sqrt(np.mean(load(track.path) ** 2)) > 1e-3


def test_processes_make_no_difference(broken: MeterFolder) -> None:
    told = Counting()
    alone = checked(broken.path)
    together = check(broken.path, DataConfig(), CLASSES, True, 2, told)
    assert together == alone
    assert told.done == told.total == {"checking": told.total["checking"]}


def test_without_decoding(broken: MeterFolder) -> None:
    report = checked(broken.path, decode=False)
    quick = {"missing", "outside", "non-music", "label", "empty", "copy", "conflict", "leak"}
    assert kinds(report) == {name: kind for name, kind in broken.excluded.items() if kind in quick}
    assert report.seconds is None


def test_a_file_that_kills_its_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(6):
        (tmp_path / f"{n}.wav").write_bytes(encode(music(n), "wav"))

    def look(decode: bool, path: Path):
        if path.name == "3.wav":
            os._exit(11)
        return path.name, 1.0

    monkeypatch.setattr(checking, "_look", look)
    report = checked(tmp_path, jobs=2)
    assert {e.id: (e.kind, "made the decoder crash" in e.reason) for e in report.dataset.excluded} == {
        "3.wav": ("unreadable", True)
    }
    assert len(report.dataset.tracks) == 5


def test_a_clean_folder(tmp_path: Path) -> None:
    f = MeterFolder(tmp_path)
    for n in range(8):
        f.good(("train", "val", "test", "train")[n // 2], f"FMA/{n}", "34"[n % 2], n)
    f.write_tables()
    report = checked(tmp_path)
    assert (report.status, report.dataset.excluded, report.warnings()) == (0, (), [])


def test_music_without_labels_is_clean(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.flac").write_bytes(encode(music(n), "flac"))
    report = checked(tmp_path)
    assert report.status == 0
    assert report.counts() == [(tmp_path.name, "-", {"-": 3})]


def test_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    assert checked(tmp_path).status == 2


def test_warnings(tmp_path: Path) -> None:
    rows = ["file,class,split,source"]
    for n in range(44):
        (tmp_path / f"{n}.wav").write_bytes(b"%d" % n)
        meter, source = (4, "one") if n < 22 else (3 + n % 2, "two")
        rows.append(f"{n}.wav,{meter},{'val' if n == 0 else 'train'},{source}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    report = checked(tmp_path, decode=False)
    assert report.warnings() == [
        "val has no track of class 3",
        "source one is 100% class 4: a model may learn the source instead of the meter",
    ]


# synthetic

PLAN = SynthPlan(seed=3, seconds=2.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("s") / "synth"
    result = synthesise(out, 60, PLAN, jobs=2)
    assert (result.made, result.kept) == (60, 0)
    return out


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_a_synthetic_set_is_a_dataset(made: Path) -> None:
    dataset = open_dataset(made, DataConfig(), CLASSES)
    assert dataset.kind == "manifest"
    assert dataset.excluded == ()
    assert len(dataset.tracks) == 60
    assert {t.split for t in dataset.tracks} == {"train", "val", "test"}
    assert len({t.group for t in dataset.tracks}) == 60
    for split, least in (("train", 5), ("val", 1), ("test", 1)):
        primaries = [t.primary for t in dataset.of_split(split)]
        assert all(primaries.count(c) >= least for c in CLASSES)
    assert split_dataset(dataset, SplitConfig()).tracks == dataset.tracks


def test_clips_are_what_the_generator_renders(made: Path) -> None:
    rows = list(csv.DictReader((made / "manifest.csv").read_text().splitlines()))
    for row in rows[::7]:
        clip = render(
            int(row["seed"]), meter=(3, 4, 5, 7, 9, 11)[rows.index(row) % 6], seconds=2.0, sample_rate=24_000
        )
        audio, rate = soundfile.read(made / row["file"], dtype="float32")
        assert rate == 24_000
        assert np.abs(audio - clip.audio).max() <= 1 / 32768 + 1e-7
        beats = [line.split("\t") for line in (made / row["beats"]).read_text().splitlines()]
        assert [float(time) for time, _ in beats] == pytest.approx(clip.beats.tolist(), abs=1e-6)
        assert [int(number) for _, number in beats] == clip.beat_numbers.tolist()
        about = json.loads((made / "annotations" / f"{Path(row['file']).stem}.json").read_text())
        assert about["meters"] == {str(m): pytest.approx(w, abs=1e-4) for m, w in clip.meters.items()}
        assert about["downbeats"] == pytest.approx(clip.downbeats.tolist(), abs=1e-6)
        assert row["class"].split(",")[0].split(":")[0] == str(clip.primary) == next(iter(about["meters"]))


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "again", 60, PLAN, jobs=1)
    assert tree(tmp_path / "again") == tree(made)


def test_a_stopped_set_goes_on_and_a_short_one_grows(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "synth"

    def stop(n: int) -> None:
        if len(list((out / "annotations").glob("*.json"))) >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(out, 60, PLAN, tick=stop)
    assert not (out / "manifest.csv").exists()
    names = sorted((out / "audio").iterdir())
    names[0].write_bytes(names[0].read_bytes()[:1000])  # cut
    names[1].unlink()
    (out / "annotations" / f"{names[2].stem}.json").write_text("{")
    (out / "beats" / f"{names[3].stem}.beats").unlink()
    (out / "audio" / ".000059.flac.1.abc").write_bytes(b"left by a killed process")
    untouched = names[4].stat().st_mtime_ns
    grown = synthesise(out, 24, PLAN)
    assert grown.kept == len(names) - 4
    assert names[4].stat().st_mtime_ns == untouched
    assert synthesise(out, 60, PLAN).kept == 24
    (out / "audio" / ".000059.flac.1.abc").unlink()
    assert tree(out) == tree(made)


def test_other_settings_need_another_folder(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other settings: seed 3, not 4"):
        synthesise(made, 60, SynthPlan(seed=4, seconds=2.0))
    (tmp_path / "file").write_text("x")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(DataError, match="is not an empty folder"):
            synthesise(out, 6, PLAN)


def test_wav_too(tmp_path: Path) -> None:
    synthesise(tmp_path / "s", 6, SynthPlan(seconds=1.0, format="wav"))
    assert len(load(tmp_path / "s" / "audio" / "000000.wav")) == 24_000


# real music


def test_real_music_is_clean(real_data: Path) -> None:
    report = checked(real_data / "meter-dev", jobs=2)
    assert (report.status, len(report.dataset.tracks)) == (0, 149)
    assert report.seconds is not None
    assert 4000 < report.seconds < 4500
    several = [t for t in report.dataset.tracks if len(t.labels) > 1]
    assert len(several) == 8
    assert all(set(t.labels.values()) == {1.0} for t in several)


def test_real_music_splits_by_tune(real_data: Path) -> None:
    result = split_dataset(open_dataset(real_data / "meter-dev", DataConfig(), CLASSES), SplitConfig())
    assert result.excluded == ()
    assert {t.split for t in result.tracks if t.group == "tabla:rudra"} in ({"train"}, {"val"}, {"test"})


def test_no_network_is_imported() -> None:
    modules = (
        "beatmeter.datasets.check, beatmeter.datasets.splits, beatmeter.datasets.synthetic, "
        "beatmeter.audio.augment"
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_mix_as_in_music_has_few_odd_bars_in_every_split() -> None:
    rows = list(_schedule(600, SynthPlan(mix="music")))
    assert Counter(meter for _, meter, _ in rows) == {4: 360, 3: 132, 7: 36, 5: 30, 9: 24, 11: 18}
    assert {meter for _, meter, split in rows if split == "val"} == set(METERS)
    assert list(_schedule(90, SynthPlan(mix="music"))) == rows[:90], "a set can be made longer"

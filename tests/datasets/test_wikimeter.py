"""A catalogue becomes a dataset: searched, refused, downloaded, cut, labelled, stopped and taken up again."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from meterfolders import encode, music
from shelf import Shelf
from waiting import until

from beatmeter.audio import ffmpeg
from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.datasets.check import check
from beatmeter.datasets.splits import split_dataset
from beatmeter.datasets.wikimeter.building import Outcome, build, plan
from beatmeter.datasets.wikimeter.catalogue import Work
from beatmeter.datasets.wikimeter.folder import WikiFolder
from beatmeter.datasets.wikimeter.segments import spans
from beatmeter.errors import AudioError, DataError
from beatmeter.settings import DataConfig, SplitConfig

CLASSES = ("3", "4", "5", "7", "9", "11")
RATE = 8000

needs_ffmpeg = pytest.mark.skipif(not ffmpeg.available(), reason="ffmpeg is not installed")


def work(
    title: str,
    seconds: float = 60.0,
    meters: dict[str, float] | None = None,
    artist: str = "Band",
    **more: Any,
) -> Work:
    return Work(artist, title, meters or {"7": 1.0}, seconds, **more)


def item(name: str, seconds: float | None = None, **more: Any) -> dict[str, Any]:
    return {"url": f"shelf:{name}", "title": name, "seconds": seconds, "file": f"{name}.flac", **more}


def put(folder: Path, name: str, seed: int, seconds: float, suffix: str = ".flac") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}{suffix}").write_bytes(encode(music(seed, seconds, RATE), suffix, RATE))


def rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def contents(out: Path) -> dict[str, bytes]:
    """Everything of a folder that does not tell the time."""
    kept = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.flac"))}
    return kept | {"wikimeter.tab": (out / "wikimeter.tab").read_bytes()}


# the plan of a song


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (14.9, []),
        (15.0, [(0, 15)]),
        (40.0, [(0, 30)]),  # not longer than 40 s: nothing is skipped, and the last 10 s are too short
        (45.0, [(10, 35)]),
        (54.9, [(10, 40)]),
        (64.9, [(10, 40)]),
        (65.0, [(10, 40), (40, 55)]),
        (100.0, [(10, 40), (40, 70), (70, 90)]),
    ],
)
def test_spans(seconds: float, expected: list[tuple[float, float]]) -> None:
    assert [pytest.approx(span) for span in spans(seconds)] == expected


def test_spans_of_an_hour() -> None:
    found = spans(3600)
    assert len(found) == 25
    assert found[-1] == (730, 760)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_cut_is_exact_to_the_sample(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ein Stück – {suffix}"
    path.write_bytes(encode(np.stack([music(1, 50, 44_100), music(2, 50, 44_100)], axis=1), suffix, 44_100))
    whole = load(path, 44_100)
    ffmpeg.cut(path, [(10.0, 40.0, tmp_path / "a.flac"), (40.0, 49.5, tmp_path / "b.flac")])
    a, b = load(tmp_path / "a.flac", 44_100), load(tmp_path / "b.flac", 44_100)
    assert (len(a), len(b)) == (30 * 44_100, round(9.5 * 44_100))
    lag = (
        int(
            np.argmax(
                [np.dot(whole[441_000 + k : 441_000 + k + 44_100], a[:44_100]) for k in range(-3000, 3000)]
            )
        )
        - 3000
    )
    assert lag in (
        (0,) if suffix == ".wav" else range(-2500, 2500)
    )  # decoders may differ by the delay of the encoder
    joined = np.concatenate([a, b])
    assert np.abs(joined - whole[441_000 + lag : 441_000 + lag + len(joined)]).max() < 2e-3
    assert soundfile.info(tmp_path / "a.flac").channels == 2


@needs_ffmpeg
def test_cut_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.mp3").write_bytes(b"no music" * 100)
    with pytest.raises(AudioError, match=r"ffmpeg cannot cut .*x\.mp3"):
        ffmpeg.cut(tmp_path / "x.mp3", [(0, 1, tmp_path / "a.flac")])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match="apt-get install ffmpeg"):
        ffmpeg.cut(tmp_path / "x.mp3", [(0, 1, tmp_path / "a.flac")])


# from a catalogue to a dataset


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Audio that the tests share."""
    folder = tmp_path_factory.mktemp("stock")
    for seed, (name, seconds) in enumerate(
        {"a": 75.0, "b": 62.0, "c": 41.0, "long": 130.0, "brief": 20.0}.items()
    ):
        put(folder, name, seed, seconds)
    (folder / "silence.flac").write_bytes(encode(np.zeros(RATE * 60, np.float32), ".flac", RATE))
    (folder / "text.mp3").write_bytes(b"This is no music.\n" * 999)
    return folder


def shelf(stock: Path, tmp_path: Path, queries: dict[str, Sequence[dict[str, Any]]]) -> Shelf:
    there = tmp_path / "shelf"
    made = Shelf.of(there, **queries)
    for path in stock.iterdir():
        if not (there / path.name).exists():
            (there / path.name).symlink_to(path)
    return made


@needs_ffmpeg
def test_a_catalogue_becomes_a_dataset(stock: Path, tmp_path: Path) -> None:
    works = [
        work("Seven/8 (live)", 70, artist="Ärzte & Söhne"),
        work("二つ", 65, {"3": 1.0, "4": 0.8}, artist="坂本"),
        work("Short", 41, {"11": 1.0}, verified=True),
    ]
    source = shelf(
        stock,
        tmp_path,
        {
            "Ärzte & Söhne Seven/8 (live)": [item("a", 75, uploader="Ärzte TV", licence="CC BY 4.0")],
            "坂本 二つ": [item("b", 62)],
            "Band Short": [item("c")],
        },
    )
    out = tmp_path / "WIKI set"
    outcome = build(works, out, source)
    assert (len(outcome.made), outcome.kept, outcome.without, outcome.segments) == (3, [], {}, 4)
    label = rows(out / "wikimeter.tab", "\t")
    assert [(r["filename"], r["label"], r["meter"], r["alt_meter"]) for r in label] == [
        ("/WIKI/Band_Short_seg00.flac", "eleven", "11", ""),
        ("/WIKI/Ärzte-Söhne_Seven-8-live_seg00.flac", "seven", "7", "14"),
        ("/WIKI/Ärzte-Söhne_Seven-8-live_seg01.flac", "seven", "7", "14"),
        ("/WIKI/坂本_二つ_seg00.flac", "three", "3,4:0.8", ""),
    ]
    assert (out / "wikimeter.tab").read_text().startswith('"filename"\t"label"\t"meter"\t"alt_meter"\t')
    dataset = open_dataset(out, DataConfig(), CLASSES)
    assert dataset.kind == "wikimeter"
    assert dataset.excluded == ()
    tracks = {t.id: t for t in dataset.tracks}
    assert dict(tracks["WIKI/坂本_二つ_seg00"].labels) == {"3": 1.0, "4": 0.8}
    assert tracks["WIKI/坂本_二つ_seg00"].primary == "3"
    assert tracks["WIKI/Band_Short_seg00"].extra["verified"] == "yes"
    assert {round(soundfile.info(t.path).duration, 3) for t in dataset.tracks} == {21.0, 30.0, 25.0}
    assert check(out, DataConfig(), CLASSES).status == 0
    licences = {r["file"]: r for r in rows(out / "licences.csv")}
    assert len(licences) == 4
    told = licences["WIKI/Ärzte-Söhne_Seven-8-live_seg01.flac"]
    assert (told["licence"], told["uploader"], told["url"], told["start"], told["end"]) == (
        "CC BY 4.0",
        "Ärzte TV",
        "shelf:a",
        "40",
        "65",
    )
    assert licences["WIKI/坂本_二つ_seg00.flac"]["licence"] == "not stated"
    assert rows(out / "rejected.csv") == []
    assert not (out / "tmp").exists()


@needs_ffmpeg
def test_everything_that_does_not_fit_is_refused_with_its_reason(stock: Path, tmp_path: Path) -> None:
    found = [
        item("album", 3600, file="long.flac"),  # an album, and it says so
        item("long"),  # an album that says nothing: 130 s where 60 are expected
        item("lies", 60, file="brief.flac"),  # claims 60 s and has 20
        item("gone", 60, fault="dead"),
        item("half", 62, file="b.flac", fault="half"),
        item("silence"),
        item("text", file="text.mp3"),
        item("a", 75),
    ]
    source = shelf(
        stock,
        tmp_path,
        {
            "Band Song": found,
            "Band Tiny": [item("brief")],
            "Band None": [],
            "Band Offline": [item("x", fault="offline")],
        },
    )
    works = [work("Song"), work("Tiny", 12.0), work("None"), work("Offline")]
    out = tmp_path / "out"
    outcome = build(works, out, source, candidates=8)
    assert outcome.made == ["Band_Song", "Band_Tiny"]
    assert outcome.without == {
        "Band_None": "the search found nothing",
        "Band_Offline": "the search failed: no route to host",
    }
    said = {
        r["url"]: (r["title"], r["reason"], r["tried_again"])
        for r in rows(out / "rejected.csv")
        if r["title"] == "Song"
    }
    assert said.keys() == {
        f"shelf:{name}" for name in ("album", "long", "lies", "gone", "half", "silence", "text")
    }
    assert said["shelf:album"][1:] == ("it lasts 1:00:00, expected 1:00 (0:30 to 2:00)", "yes")
    assert said["shelf:long"][1:] == ("it lasts 2:10, expected 1:00 (0:30 to 2:00)", "no")
    assert said["shelf:lies"][1:] == ("it lasts 0:20, expected 1:00 (0:30 to 2:00)", "no")
    assert said["shelf:gone"][1:] == ("the download failed: HTTP Error 404: Not Found", "yes")
    assert said["shelf:half"][1].startswith(("truncated: it", "unreadable: "))
    assert said["shelf:silence"][1].startswith("silent: it")
    assert said["shelf:text"][1].startswith("unreadable: ")
    assert not any(str(tmp_path) in r["reason"] for r in rows(out / "rejected.csv"))
    assert "shelf:album" not in source.log
    assert build(works, out, source, candidates=8).kept == ["Band_Song", "Band_Tiny"]


@needs_ffmpeg
def test_what_was_refused_for_good_is_not_downloaded_again(stock: Path, tmp_path: Path) -> None:
    source = shelf(stock, tmp_path, {"Band Song": [item("long"), item("gone", fault="dead")]})
    out = tmp_path / "out"
    assert build([work("Song")], out, source).without == {
        "Band_Song": "the download failed: HTTP Error 404: Not Found"
    }
    assert build([work("Song")], out, source).made == []
    assert source.log == ["shelf:long", "shelf:gone", "shelf:gone"]
    source = shelf(stock, tmp_path, {"Band Song": [item("long"), item("gone", fault="dead"), item("a")]})
    assert build([work("Song")], out, source).made == ["Band_Song"]
    assert [r["url"] for r in rows(out / "rejected.csv")] == ["shelf:long", "shelf:gone"]


@needs_ffmpeg
def test_one_recording_is_taken_once(stock: Path, tmp_path: Path) -> None:
    same = {"file": "a.flac"}
    queries = {
        "Band One": [item("a1", **same)],
        "Band Two": [item("a1", **same), item("a2", **same), item("b")],
        "Band Three": [item("b2", file="b.flac")],
    }
    source = shelf(stock, tmp_path, queries)
    out = tmp_path / "out"
    outcome = build([work("One"), work("Two"), work("Three")], out, source)
    assert outcome.made == ["Band_One", "Band_Three"]
    assert outcome.without.keys() == {"Band_Two"}
    fetched = len(source.log)
    source = shelf(stock, tmp_path, {**queries, "Band Four": [item("a1", **same), item("c")]})
    assert build([work("Four")], out, source).made == ["Band_Four"]
    assert source.log[fetched:] == ["shelf:c"]
    assert {(r["title"], r["url"], r["reason"]) for r in rows(out / "rejected.csv")} == {
        ("Two", "shelf:a1", "it is the same audio as Band_One"),
        ("Two", "shelf:a2", "it is the same audio as Band_One"),
        ("Two", "shelf:b", "it is the same audio as Band_Three"),
        ("Four", "shelf:a1", "Band_One has it already"),
    }
    assert len({path.read_bytes() for path in (out / "WIKI").iterdir()}) == len(
        list((out / "WIKI").iterdir())
    )


@needs_ffmpeg
def test_the_source_of_the_catalogue_goes_before_the_search(stock: Path, tmp_path: Path) -> None:
    source = shelf(stock, tmp_path, {"Band Song": [item("a")], "elsewhere": [item("b")]})
    out = tmp_path / "out"
    build([work("Song")], out, source)
    build([work("Song", source="shelf:b")], out, source)
    assert {r["url"] for r in rows(out / "licences.csv")} == {"shelf:b"}
    build([work("Song", source="shelf:b")], out, source)
    assert source.log == ["shelf:a", "shelf:b"]


@needs_ffmpeg
def test_a_catalogue_that_changes(stock: Path, tmp_path: Path) -> None:
    source = shelf(stock, tmp_path, {"Band One": [item("a")], "Band Two": [item("b")]})
    out = tmp_path / "out"
    build([work("One"), work("Two")], out, source)
    build([work("One", meters={"5": 1.0})], out, source)  # another meter, and the other work is not in it
    assert {(r["filename"].split("_")[1], r["meter"]) for r in rows(out / "wikimeter.tab", "\t")} == {
        ("One", "5"),
        ("Two", "7"),
    }
    assert len(source.log) == 2
    assert build([work("One", 200)], out, source).without.keys() == {"Band_One"}  # 75 s are too short now
    assert {path.name.split("_")[1] for path in (out / "WIKI").iterdir()} == {"Two"}
    next((out / "WIKI").iterdir()).unlink()
    assert build([work("Two")], out, source).made == ["Band_Two"]


# groups


@needs_ffmpeg
def test_groups_join_artist_tune_and_people(stock: Path, tmp_path: Path) -> None:
    works = [
        work("Take Five", artist="Dave Brubeck Quartet", people=("Paul Desmond",)),
        work("Take Five (live)", artist="Al Jarreau", tune="Take Five"),
        work("Mornin'", artist="al jarreau"),
        work("Money", artist="Pink Floyd"),
        work("The Dancing Bear", artist="Trio Ö"),
        work("Other", artist="The Trio O"),
    ]
    source = shelf(stock, tmp_path, {w.query: [item(f"x{i}", file=f"{i}.flac")] for i, w in enumerate(works)})
    for i in range(len(works)):
        put(source.folder, str(i), 50 + i, 75.0)
    out = tmp_path / "out"
    build(works, out, source)
    dataset = open_dataset(out, DataConfig(), CLASSES)
    found = {t.id.split("/")[1].rpartition("_seg")[0]: t.group for t in dataset.tracks}
    assert (
        found["Dave-Brubeck-Quartet_Take-Five"]
        == found["Al-Jarreau_Take-Five-live"]
        == found["al-jarreau_Mornin"]
    )
    assert found["Trio-Ö_The-Dancing-Bear"] == found["The-Trio-O_Other"]
    assert len(set(found.values())) == 3
    for seed in range(5):
        split = split_dataset(dataset, SplitConfig(val=0.3, test=0.3, seed=seed))
        assert split.excluded == ()
        assert all(
            len({t.split for t in split.tracks if t.group == group}) == 1 for group in set(found.values())
        )


# stopped and taken up again


def many(stock: Path, tmp_path: Path, fault: str = "") -> tuple[list[Work], Shelf]:
    """Six works; the fault strikes at the fourth."""
    works = [work(f"Song {i}", 60) for i in range(6)]
    queries = {
        w.query: [item(f"s{i}", **({"fault": fault} if fault and i == 3 else {}))]
        for i, w in enumerate(works)
    }
    source = shelf(stock, tmp_path, queries)
    for i in range(6):
        if not (source.folder / f"s{i}.flac").exists():
            put(source.folder, f"s{i}", 100 + i, 66.0)
    return works, source


@needs_ffmpeg
def test_interrupted_in_a_download(stock: Path, tmp_path: Path) -> None:
    works, source = many(stock, tmp_path, "stop")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build(works, out, source)
    assert not (out / "tmp").exists()
    assert len(open_dataset(out, DataConfig(), CLASSES).tracks) == 6  # three works of two segments, whole
    works, source = many(stock, tmp_path)
    outcome: Outcome = build(works, out, source)
    assert (outcome.kept, outcome.made) == (
        ["Band_Song-0", "Band_Song-1", "Band_Song-2"],
        ["Band_Song-3", "Band_Song-4", "Band_Song-5"],
    )
    undisturbed = tmp_path / "undisturbed"
    build(works, undisturbed, source)
    assert contents(out) == contents(undisturbed)


@needs_ffmpeg
def test_several_jobs_and_a_process_that_dies(stock: Path, tmp_path: Path) -> None:
    works, source = many(stock, tmp_path, "die")
    out = tmp_path / "out"
    outcome = build(works, out, source, jobs=2)
    assert outcome.without == {"Band_Song-3": "the process that worked on it died"}
    works, source = many(stock, tmp_path)
    assert build(works, out, source, jobs=2).made == ["Band_Song-3"]
    build(works, tmp_path / "alone", source)
    assert contents(out) == contents(tmp_path / "alone")


@needs_ffmpeg
def test_killed_at_random_moments(stock: Path, tmp_path: Path) -> None:
    works, source = many(stock, tmp_path)
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from shelf import Shelf;"
        "from beatmeter.datasets.wikimeter.building import build; from "
        "beatmeter.datasets.wikimeter.catalogue import Work;"
        "print('ready', flush=True);"
        "build([Work('Band', f'Song {i}', {'7': 1.0}, 60.0) for i in range(6)], Path(sys.argv[3]), "
        "Shelf(Path(sys.argv[2])))"
    )
    out = tmp_path / "out"

    def wait_for_downloads(process: subprocess.Popen[str], number: int) -> None:
        until(lambda: process.poll() is not None or len(source.log) >= number)

    rng = np.random.default_rng(7)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(Path(__file__).parents[1]), str(source.folder), str(out)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
            wait_for_downloads(process, len(source.log) + int(rng.integers(0, 4)))
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (out / "wikimeter.tab").exists():  # at any moment: whole works only
            assert open_dataset(out, DataConfig(), CLASSES, labelled=False).excluded == ()
    build(works, out, source)
    build(works, tmp_path / "undisturbed", source)
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert check(out, DataConfig(), CLASSES).status == 0


@needs_ffmpeg
def test_half_written_files_of_an_earlier_run_do_no_harm(stock: Path, tmp_path: Path) -> None:
    source = shelf(stock, tmp_path, {"Band Song": [item("a")]})
    out = tmp_path / "out"
    (out / "works").mkdir(parents=True)
    (out / "WIKI").mkdir()
    (out / "WIKI" / "Band_Song_seg00.flac").write_bytes(b"half")
    (out / "WIKI" / "Band_Song_seg07.flac").write_bytes(b"of a longer recording")
    (out / "WIKI" / "mine_seg00.flac").write_bytes(b"not of this set")
    (out / "tmp" / "123-abc").mkdir(parents=True)
    (out / "tmp" / "123-abc" / "audio.webm.part").write_bytes(b"half")
    build([work("Song")], out, source)
    assert sorted(p.name for p in (out / "WIKI").iterdir()) == [
        "Band_Song_seg00.flac",
        "Band_Song_seg01.flac",
        "mine_seg00.flac",
    ]
    assert check(out, DataConfig(), CLASSES).status == 0
    (out / "WIKI" / "Band_Song_seg01.flac").write_bytes(b"cut short")
    assert not plan([work("Song")], out)[0].done
    assert build([work("Song")], out, source).made == ["Band_Song"]


@needs_ffmpeg
def test_a_folder_is_built_by_one_process_and_never_taken_from_others(stock: Path, tmp_path: Path) -> None:
    source = shelf(stock, tmp_path, {"Band Song": [item("a")]})
    out = tmp_path / "out"
    with WikiFolder(out).locked(), pytest.raises(DataError, match="another process is building"):
        build([work("Song")], out, source)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not a folder that this command made"):
        build([work("Song")], mine, source)
    build([work("Song")], out, source)
    record = out / "works" / "Band_Song.json"
    record.write_text(record.read_text()[:50])
    with pytest.raises(DataError, match=r"Band_Song\.json is no record"):
        build([work("Song")], out, source)
    assert len(list((out / "WIKI").iterdir())) == 2


def test_nothing_is_tried_without_ffmpeg_or_a_downloader(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="there is no shelf"):
        build([work("Song")], tmp_path / "out", Shelf(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="ffmpeg is not installed"):
        build([work("Song")], tmp_path / "out", shelf(stock, tmp_path, {}))
    assert not (tmp_path / "out").exists()


@needs_ffmpeg
def test_records_say_all_of_it(stock: Path, tmp_path: Path) -> None:
    source = shelf(stock, tmp_path, {"Band Song": [item("a", licence="CC0")]})
    out = tmp_path / "out"
    build([work("Song", meters={"3": 1.0, "4": 0.5})], out, source)
    value = json.loads((out / "works" / "Band_Song.json").read_text())
    assert value["work"]["meters"] == {"3": 1.0, "4": 0.5}
    assert value["source"]["licence"] == "CC0"
    assert value["source"]["seconds"] == 75.0
    assert [s["bytes"] for s in value["segments"]] == [
        p.stat().st_size for p in sorted((out / "WIKI").iterdir())
    ]

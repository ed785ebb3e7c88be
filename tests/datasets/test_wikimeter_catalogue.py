"""Catalogues: what a table may say, names of files, groups; the catalogues that ship; the command as it is
typed."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from meterfolders import encode, music
from shelf import Shelf

from beatmeter.audio import ffmpeg
from beatmeter.cli.data import data
from beatmeter.datasets.files import song
from beatmeter.datasets.wikimeter import downloader
from beatmeter.datasets.wikimeter.catalogue import Work, file_name, groups, plain, read_catalogue
from beatmeter.datasets.wikimeter.downloader import DownloadError, YtDlp
from beatmeter.errors import DataError

CLASSES = ("3", "4", "5", "7", "9", "11")
CATALOGUES = Path(__file__).parents[2] / "data" / "catalogues"
HEADER = "artist,title,meters,seconds,tune,people,source,verified,note\n"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(data, ["wikimeter", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def write(path: Path, *lines: str) -> Path:
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# reading


def test_a_catalogue(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.csv",
        "A,B,7/8,300,,X; Y ,https://example.org/b,yes,by ear",
        'A,C,"3:0.7,4",61.5,Tune,,,,',
    )
    first, second = read_catalogue(path, CLASSES)
    assert first == Work(
        "A", "B", {"7": 1.0}, 300.0, "", ("X", "Y"), "https://example.org/b", True, "c.csv:2"
    )
    assert (dict(second.meters), second.seconds, second.tune, second.verified) == (
        {"3": 0.7, "4": 1.0},
        61.5,
        "Tune",
        False,
    )
    assert [w.title for w in read_catalogue(tmp_path, CLASSES)] == ["B", "C"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A,,7,300,,,,,", r"c\.csv:3: title is empty"),
        ("A,B,13,300,,,,,", r"c\.csv:3: meter '13' is not one of the classes"),
        ("A,B,7,5:24,,,,,", r"c\.csv:3: seconds '5:24' is not a number\. 5:24 is 324"),
        ("A,B,7,-1,,,,,", r"c\.csv:3: seconds -1 is not above zero"),
        ("A,B,7,inf,,,,,", r"c\.csv:3: seconds inf"),
        ("A,B,7,300,,,,perhaps,", r"c\.csv:3: verified 'perhaps' is neither yes nor no"),
        ("A,B,3,4,300,,,,,", r"c\.csv:3: 10 cells, the header has 9\. Quote cells"),
        ("x,Y,7,300,,,,,", r"c\.csv:3: x - Y is named like c\.csv:2"),
    ],
)
def test_a_row_that_cannot_be_used(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_catalogue(write(tmp_path / "c.csv", "X,y,3,60,,,,,", line), CLASSES)


def test_a_catalogue_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"artist,title,meters,seconds\nBj\xf6rk,A,7,60\n")
    with pytest.raises(DataError, match=r"c\.csv:2: these bytes are not UTF-8\. Save the table as UTF-8"):
        read_catalogue(tmp_path / "c.csv", CLASSES)


def test_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no catalogue"):
        read_catalogue(tmp_path / "c.csv", CLASSES)
    with pytest.raises(DataError, match="lists no works"):
        read_catalogue(write(tmp_path / "c.csv"), CLASSES)
    (tmp_path / "c.csv").write_text("artist,title\nA,B\n")
    with pytest.raises(DataError, match="lacks the columns meters, seconds"):
        read_catalogue(tmp_path / "c.csv", CLASSES)


# names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("AC/DC", "AC-DC"),
        ("Don't Stop – Live!", "Dont-Stop-Live"),
        ("../../etc/passwd", "etc-passwd"),
        ("a_b", "a-b"),
        ("Cafe\u0301", "Café"),
        ("Шта јесте", "Шта-јесте"),
        ("चल", "चल"),
    ],
)
def test_file_names(text: str, name: str) -> None:
    assert file_name(text) == name


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_a_file_name_is_always_one(artist: str, title: str) -> None:
    name = Work(artist, title, {"3": 1.0}, 60.0).song
    assert song(f"{name}_seg07") == name
    assert 3 <= len(f"{name}_seg07.flac".encode("utf-8", "surrogateescape")) <= 200
    assert not set(name) & set("/\\\0\n\r\t:*?\"<>|' .")
    assert name.count("_") == 1


def test_names_for_comparing() -> None:
    assert plain("The Beatles") == plain("beatles") == "beatles"
    assert plain("Simon & Garfunkel") == plain("Simon and Garfunkel")
    assert plain("Sigur Rós") == plain("SIGUR ROS")
    assert plain("The The") == "the"
    assert plain("!!!") == "!!!"


def test_groups_are_transitive() -> None:
    works = [
        Work("A", "x", {"3": 1.0}, 60),
        Work("B", "x", {"3": 1.0}, 60),
        Work("B", "y", {"3": 1.0}, 60),
        Work("C", "z", {"3": 1.0}, 60, tune="Y"),
        Work("D", "w", {"3": 1.0}, 60),
        Work("Traditional (X)", "v", {"3": 1.0}, 60),
        Work("Traditional (X)", "u", {"3": 1.0}, 60),
    ]
    same = dict.fromkeys(("A_x", "B_x", "B_y", "C_z"), "song:A_x")
    assert groups(works) == same | {
        name: f"song:{name}" for name in ("D_w", "Traditional-X_v", "Traditional-X_u")
    }


# the catalogues that ship


def test_the_catalogues_that_ship() -> None:
    works = read_catalogue(CATALOGUES, CLASSES)
    single = {meter: [w for w in works if list(w.meters) == [meter]] for meter in CLASSES}
    least = {"3": 29, "4": 29, "5": 30, "7": 32, "9": 12, "11": 8}
    assert {meter: len(single[meter]) >= n for meter, n in least.items()} == dict.fromkeys(least, True)
    assert sum(len(w.meters) > 1 for w in works) >= 23
    assert not any(w.verified for w in works)  # until somebody listens
    assert all(30 <= w.seconds <= 3600 for w in works)
    for meter, among in single.items():  # no artist may carry a class
        known = [w.artist for w in among if not w.artist.startswith("Traditional")]
        largest = max(known.count(artist) for artist in known)
        assert largest <= max(2, len(among) // 8), meter


# the command


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of two works, one of which can be had; yt-dlp is replaced by a shelf."""
    source = Shelf.of(tmp_path / "shelf", **{"A One": [{"url": "s:1", "file": "1.flac"}]})
    (source.folder / "1.flac").write_bytes(encode(music(1, 66.0, 8000), ".flac", 8000))
    monkeypatch.setattr(downloader, "YtDlp", lambda where: source)
    return write(tmp_path / "c.csv", "A,One,7,60,,,,,", 'A,Two,"3,4",100,,,,,', "A,Three,5,100,,,file:x,,")


def test_dry_run(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(served, tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "[7] A_One: search 'A One', accept 0:30 to 2:00, 1 segment",
        "[3,4] A_Two: search 'A Two', accept 0:50 to 3:20, 3 segments",
        "[5] A_Three: take file:x, accept 0:50 to 3:20, 3 segments",
        "3 of 3 works to do, about 7 segments",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not ffmpeg.available(), reason="ffmpeg is not installed")
def test_the_command(served: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(served, out, "--class", "7")
    assert (result.exit_code, result.stdout) == (
        0,
        (
            f"{out / 'wikimeter.tab'}: 1 work made, 0 kept, 0 not there; 2 segments; every refusal is in "
            f"{out / 'rejected.csv'}\n"
        ),
    )
    result = run(served, out, "--limit", 2)
    assert result.exit_code == 1
    assert "not there: A_Two: the search found nothing" in result.stdout
    assert "0 works made, 1 kept, 1 not there; 2 segments" in result.stdout
    assert run(served, out, "--class", "4").exit_code == 2
    assert "[7] A_One: there already" in run(served, out, "--dry-run").stdout
    with pytest.raises(DataError, match="no works with the meter 9"):
        run(served, out, "--class", "9")
    with pytest.raises(DataError, match="'13' is not one of the classes"):
        run(served, out, "--class", "13")


def test_help_has_examples() -> None:
    assert "beatmeter data wikimeter data/catalogues" in run("--help").stdout


# yt-dlp


def test_without_ytdlp_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yt_dlp", None)
    with pytest.raises(DataError, match=r"pip install 'beatmeter\[wikimeter\]'"):
        YtDlp().require()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine that serves one song."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "song.mp3").write_bytes(encode(music(3, 20.0), ".mp3"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    ) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def test_ytdlp_downloads(server: str, tmp_path: Path) -> None:
    pytest.importorskip("yt_dlp")
    client = YtDlp(pause=0)
    client.require()
    there = tmp_path / "there"
    there.mkdir()
    found = client.fetch(f"{server}/song.mp3", there, 60.0)
    assert found.path.parent == there
    assert found.path.read_bytes() == (tmp_path / "www" / "song.mp3").read_bytes()
    assert found.title == "song"
    with pytest.raises(DownloadError, match="404"):
        client.fetch(f"{server}/gone.mp3", there, 60.0)
    with pytest.raises(DownloadError):
        client.fetch("http://127.0.0.1:1/song.mp3", there, 60.0)


def test_ytdlp_answers_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    yt_dlp = pytest.importorskip("yt_dlp")
    asked: list[tuple[str, bool, dict[str, object]]] = []
    answers = {
        False: {
            "entries": [
                {"url": "u1", "title": "One\n more", "duration": 61},
                None,
                {"title": "no address"},
                {"url": "u2", "duration": None},
            ]
        },
        True: {
            "title": "One",
            "channel": "Somebody",
            "license": "Creative Commons Attribution license (reuse allowed)",
            "requested_downloads": [{"filepath": str(tmp_path / "audio.webm")}],
        },
    }

    class Client(yt_dlp.YoutubeDL):  # type: ignore[misc, name-defined]
        def extract_info(self, url: str, download: bool = True, **_: object) -> dict[str, object]:
            asked.append((url, download, dict(self.params)))
            return answers[download]

    monkeypatch.setattr(yt_dlp, "YoutubeDL", Client)
    client = YtDlp("scsearch", pause=0)
    client.require()
    assert [(c.url, c.title, c.seconds) for c in client.search("a b", 5)] == [
        ("u1", "One more", 61.0),
        ("u2", "", None),
    ]
    assert asked[0][:2] == ("scsearch5:a b", False)
    (tmp_path / "audio.webm").write_bytes(b"x")
    found = client.fetch("u1", tmp_path, 100.0)
    assert (found.path.name, found.uploader, found.licence) == (
        "audio.webm",
        "Somebody",
        "Creative Commons Attribution license (reuse allowed)",
    )
    refuse = asked[1][2]["match_filter"]
    assert refuse({"duration": 101}) == ("it lasts 101 s, at most 100 s were asked for")  # type: ignore[operator]
    assert refuse({"is_live": True}) == "it is a live stream"  # type: ignore[operator]
    assert refuse({"duration": 99}) is None  # type: ignore[operator]
    answers[True] = {"title": "One"}
    with pytest.raises(DownloadError, match="gave no file"):
        client.fetch("u1", tmp_path, 100.0)
    with pytest.raises(DataError, match="has no search 'nosuchsearch'"):
        YtDlp("nosuchsearch").require()

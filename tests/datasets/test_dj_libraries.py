"""Libraries of DJ programs: every trap of real exports on small files, and the real files where they are."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from beatmeter.cli.data import data
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import (
    Annotation,
    Events,
    Grid,
    Provenance,
    Spans,
    find_annotations,
    read_annotation,
)
from beatmeter.datasets.dj import read_analyses, read_rekordbox, read_serato, read_traktor, render_rekordbox
from beatmeter.datasets.dj.alignment import RATE, WINDOW, estimate_offset
from beatmeter.datasets.dj.building import annotate
from beatmeter.datasets.dj.library import Cue, LibraryTrack, Tempo, expand, kind_of, merge_twins
from beatmeter.datasets.dj.rekordbox import location_of
from beatmeter.datasets.dj.serato import parse_beatgrid, parse_markers2
from beatmeter.errors import DataError
from beatmeter.settings import DataConfig

SR = 24_000
BEAT_BY_BEAT = "".join(
    f'<TEMPO Inizio="{48.026 + k / 2 - k % 2 / 1000:.3f}" Bpm="120.00" Metro="4/4" Battito="{k % 4 + 1}"/>'
    for k in range(9)
)
XML = f"""<?xml version="1.0" encoding="UTF-8"?>
<DJ_PLAYLISTS Version="1.0.0"><PRODUCT Name="rekordbox" Version="6.6.2" Company="AlphaTheta"/>
<COLLECTION Entries="7">
 <TRACK TrackID="1" Name="Nodes" Kind="Mp3-Datei " TotalTime="128" AverageBpm="120.00"
  Location="file://localhost/C:/M%C3%BCsic/a%20b+c.mp3">
  <TEMPO Inizio="0.025" Bpm="120.00" Metro="4/4" Battito="1"/>{BEAT_BY_BEAT}</TRACK>
 <TRACK TrackID="2" Name="Cues first" TotalTime="60" AverageBpm="120,00" Location="file://localhost/Users/x/d.mp3">
  <POSITION_MARK Name="" Type="0" Start="16,025" Num="-1"/>
  <POSITION_MARK Name="Drop" Type="0" Start="16.025" Num="0" Red="40" Green="226" Blue="20"/>
  <POSITION_MARK Name="" Type="0" Start="8.025" Num="1"/>
  <POSITION_MARK Name="Intro" Type="0" Start="8.025" Num="-1"/>
  <POSITION_MARK Name="" Type="4" Start="24.025" End="28.025" Num="2"/>
  <POSITION_MARK Type="0" Start="24.025" Num="-1"/>
  <POSITION_MARK Name="lost" Type="0" Start="" Num="-1"/>
  <TEMPO Inizio="0,025" Bpm="120,000000001" Metro="" Battito=""/></TRACK>
 <TRACK TrackID="3" Name="HORN" TotalTime="7" AverageBpm="0.00" Location="file://localhost/Users/x/h.wav"/>
 <TRACK TrackID="3" Name="Twice" TotalTime="7" Location="file://localhost/Users/x/i.wav"/>
 <TRACK TrackID="5" Name="Nowhere" TotalTime="7"/>
 <TRACK TrackID="6" Name="Waltz" TotalTime="10" Location="file:///x/w.mp3">
  <TEMPO Inizio="0.5" Bpm="90" Metro="3/4" Battito="2"/>
  <TEMPO Inizio="4" Bpm="0" Metro="4/4" Battito="1"/></TRACK>
 <TRACK TrackID="7" Name="Mix" TotalTime="7260" AverageBpm="128.00"
  Location="file://localhost/Users/x/m.mp3">
  <TEMPO Inizio="7100.5" Bpm="128.00" Metro="4/4" Battito="1"/></TRACK>
</COLLECTION>
<PLAYLISTS><NODE Type="0"><NODE Type="1"><TRACK Key="1"/></NODE></NODE></PLAYLISTS></DJ_PLAYLISTS>
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("rekordbox") / "export.xml"
    path.write_text(XML, encoding="utf-8")
    return read_rekordbox(path)


def doubled(times: np.ndarray) -> int:
    """Beats that are less than half the median beat after another."""
    gaps = np.diff(times)
    return int((gaps < np.median(gaps) / 2).sum())


def naive(tempos: tuple[Tempo, ...], end: float) -> np.ndarray:
    """Every tempo expanded up to the next one."""
    stops = [*(t.time for t in tempos[1:]), end]
    return np.concatenate(
        [np.arange(t.time, stop, 60 / t.bpm) for t, stop in zip(tempos, stops, strict=True)]
    )


def test_a_node_one_beat_after_another_doubles_no_beat(library) -> None:
    track = library.tracks[0]
    assert doubled(naive(track.tempos, 129.0)) > 0
    grid = expand(track.tempos, 128.9, "x")
    assert doubled(grid.times) == 0
    assert np.abs(np.diff(grid.times) - 0.5).max() < 0.003
    assert (np.diff(np.flatnonzero(grid.places == 1)) == 4).all()
    assert grid.times[-1] > 128.5  # TotalTime is cut: there are beats behind it
    assert grid.changes.tolist() == [[0.025, 120.0]]


def test_locations_are_paths() -> None:
    assert location_of("file://localhost/C:/M%C3%BCsic/a%20b+c.mp3") == "C:/Müsic/a b+c.mp3"
    assert location_of("file://localhost/Users/x/d.mp3") == "/Users/x/d.mp3"
    assert location_of("file:///x/%23.mp3") == "/x/#.mp3"


def test_pairs_of_cues_are_one_place_and_keep_their_name(library) -> None:
    track = library.tracks[1]
    assert len(track.cues) == 6
    assert [(c.time, c.kind, c.name, c.length) for c in merge_twins(track.cues)] == [
        (8.025, "hot", "Intro", 0.0),
        (16.025, "hot", "Drop", 0.0),
        (24.025, "loop", "", 4.0),
    ]
    assert "a cue without a time was left out" in track.flags
    assert (track.tempos[0].time, track.tempos[0].beats, track.tempos[0].place) == (0.025, 4, 1)


def test_odd_tracks(library) -> None:
    by_id = {t.id: t for t in library.tracks}
    assert list(by_id) == ["1", "2", "3", "6", "7"]
    assert [name for name, _ in library.left_out] == ["3", "5"]
    assert annotate(by_id["3"], 7.4, "x").grid is None
    waltz = expand(by_id["6"].tempos, 10.5, "x")
    assert waltz.places[:4].tolist() == [2, 3, 1, 2]
    assert by_id["6"].flags == ("a TEMPO without a time or a tempo was left out",)
    assert expand(by_id["7"].tempos, 7260.5, "x").times[-1] > 7260


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<NML></NML>", "begins with <NML>, not <DJ_PLAYLISTS>"),
        ('<DJ_PLAYLISTS>\n<COLLECTION><TRACK TrackID="1">', r"bad.xml:2: not valid XML"),
        ("", "not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><DJ_PLAYLISTS>&b;</DJ_PLAYLISTS>', "entities"),
    ],
)
def test_what_is_no_export_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.xml").write_text(text)
    with pytest.raises(DataError, match=said):
        read_rekordbox(tmp_path / "bad.xml")
    with pytest.raises(DataError, match="cannot read"):
        read_rekordbox(tmp_path / "none.xml")


def test_names_of_cues_say_what_they_mark() -> None:
    names = ("Drop", "drop 2!", "Main Drop", "Break", "BUILD", "Vocals", "backdrop", "")
    kinds = ("drop", "drop", "drop", "break", "build-up", "cue", "cue", "cue")
    assert tuple(kind_of(Cue(1.0, "hot", name)) for name in names) == kinds
    assert kind_of(Cue(1.0, "loop", "", 4.0)) == "loop"


def test_a_library_says_nothing_far_from_its_cues_and_flags_cues_off_the_grid() -> None:
    track = LibraryTrack(
        "1",
        "a.wav",
        60,
        tempos=(Tempo(0.0, 120.0),),
        cues=(Cue(20.0, "hot"), Cue(40.2, "hot"), Cue(99.0, "hot")),
    )
    found = annotate(track, 60.4, "x")
    assert found.events.known.tolist() == [[12.0, 28.0], [32.2, 48.2]]
    assert found.events.places.tolist() == [1, 0]
    assert found.grid.provenance.flags == (
        "1 of 3 cues are outside the audio",
        "1 of 2 cues are off the grid",
    )
    assert (found.grid.provenance.tier, found.grid.known.tolist()) == (2, [[0.0, 60.4]])


def test_traktor_has_milliseconds_and_markers_that_reach_back(tmp_path: Path) -> None:
    cue = '<CUE_V2 NAME="{}" TYPE="{}" START="{}" LEN="{}" HOTCUE="{}">{}</CUE_V2>'
    cues = (
        cue.format("AutoGrid", 4, 1250.0, 0, 0, '<GRID BPM="120.0"/>')
        + cue.format("Beat Marker", 4, 20250.0, 0, -1, '<GRID BPM="60.0"/>')
        + cue.format("n.n.", 0, 2250.0, 0, 1, "")
        + cue.format("Drop", 5, 4250.0, 2000.0, 2, "")
    )
    location = '<LOCATION DIR="/:Music/:A &amp; B/:" FILE="s.mp3" VOLUME="D:"/>'
    info = '<INFO PLAYTIME="30" PLAYTIME_FLOAT="30.5"/>'
    (tmp_path / "c.nml").write_text(
        f'<NML VERSION="19"><COLLECTION><ENTRY TITLE="t">{location}{info}{cues}</ENTRY>'
        '<ENTRY TITLE="u"/></COLLECTION></NML>'
    )
    library = read_traktor(tmp_path / "c.nml")
    track = library.tracks[0]
    assert (track.location, track.seconds, library.left_out[0][0]) == ("D:/Music/A & B/s.mp3", 30.5, "u")
    assert [(c.time, c.kind, c.name, c.length) for c in track.cues] == [
        (2.25, "hot", "", 0.0),
        (4.25, "loop", "Drop", 2.0),
    ]
    grid = annotate(track, 30.5, "x").grid
    assert grid.times[:2].tolist() == [0.25, 0.75]
    assert np.diff(grid.times[-5:]).tolist() == [1.0] * 4
    assert grid.places[2] == 1
    assert doubled(grid.times) == 0


def markers2(*entries: tuple[bytes, bytes]) -> bytes:
    body = b"\x01\x01" + b"".join(
        name + b"\0" + struct.pack(">I", len(value)) + value for name, value in entries
    )
    return b"\x01\x01" + base64.b64encode(body + b"\0").rstrip(b"=") + b"\0" * 20


def test_serato_tags_in_every_container() -> None:
    grid = (
        b"\x01\x00"
        + struct.pack(">I", 2)
        + struct.pack(">fI", -0.5, 8)
        + struct.pack(">ff", 3.5, 60.0)
        + b"\x41"
    )
    wanted = (Tempo(-0.5, 120.0, 1), Tempo(3.5, 60.0, 1))
    wrapped = base64.b64encode(b"application/octet-stream\0\0Serato BeatGrid\0" + grid)
    for tag in (grid, wrapped, wrapped.rstrip(b"="), wrapped[:72] + b"\n" + wrapped[72:], grid[:-1]):
        assert parse_beatgrid(tag) == wanted
    assert expand(wanted, 10.0, "x").times[:3].tolist() == [-0.5, 0.0, 0.5]
    with pytest.raises(DataError, match="cut"):
        parse_beatgrid(grid[:12])
    with pytest.raises(DataError, match="no base64"):
        parse_beatgrid(b"\x01\x02abcdef")
    cue = b"\0\x01" + struct.pack(">I", 1500) + b"\0\xcc\0\0\0\0" + "Drö".encode() + b"\0"
    loop = b"\0\x01" + struct.pack(">II", 2000, 4000) + b"\xff" * 4 + b"\0" * 4 + b"\0\0" + b"L\0"
    none = b"\0\x02" + struct.pack(">I", 0x7F7F7F7F) + b"\0\xcc\0\0\0\0\0"
    tag = markers2((b"COLOR", b"\0\xff\xff\xff"), (b"CUE", cue), (b"LOOP", loop), (b"CUE", none))
    assert parse_markers2(tag) == (Cue(1.5, "hot", "Drö"), Cue(2.0, "loop", "L", 2.0))
    assert parse_markers2(b"\x01\x01" + b"\0" * 10) == ()
    with pytest.raises(DataError, match="no base64"):
        parse_markers2(b"\x01\x01%%%%")


def clicks(offset: float = 0.0, seconds: float = 20.0) -> np.ndarray:
    """Bursts of noise every half second from 0.25 s + offset."""
    t = np.arange(round(seconds * SR)) / SR - 0.25 - offset
    return 0.5 * np.random.default_rng(0).standard_normal(len(t)) * np.exp(-60 * (t % 0.5)) * (t >= 0)


def test_the_offset_of_a_grid_is_heard() -> None:
    from beatmeter.audio.onsets import OnsetMeter

    meter = OnsetMeter(SR, RATE, WINDOW)
    meter.push(clicks())
    envelope = meter.finish()
    beats = 0.25 + 0.5 * np.arange(39)
    for late in (-0.026, 0.0, 0.026):
        offset = estimate_offset(envelope, beats + late)
        assert offset.clear
        assert abs(offset.seconds + late) < 0.002
    assert not estimate_offset(np.random.default_rng(1).random(8000), beats).clear
    assert not estimate_offset(envelope, beats[:5]).clear


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dj") / "MUSIC"
    for name, wave in (
        ("A/good.wav", clicks()),
        ("B/late.wav", clicks(0.026)),
        ("B/far.wav", clicks(0.08)),
        ("B/other.wav", clicks(seconds=9.0)),
        ("A/same.wav", clicks()),
        ("B/same.wav", clicks()),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, wave, SR, "PCM_16")
    tempo = '<TEMPO Inizio="0.250" Bpm="120.00" Metro="4/4" Battito="1"/>'
    tempo += '<POSITION_MARK Name="Drop" Start="8.25" Type="0" Num="0"/>'
    places = ("A/good", "B/late", "B/far", "B/other", "X/same", "A/same", "A/gone")
    tracks = "".join(
        f'<TRACK TrackID="{i}" Name="{name}" TotalTime="20" Location="file://localhost/D:/{name}.wav">{tempo}</TRACK>'
        for i, name in enumerate(places)
    )
    (folder.parent / "export.xml").write_text(
        f"<DJ_PLAYLISTS><COLLECTION>{tracks}</COLLECTION></DJ_PLAYLISTS>"
    )
    return folder


def test_the_command_makes_a_data_set_of_what_fits_and_says_the_rest(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "DATA"
    arguments = ["rekordbox", str(music.parent / "export.xml"), "--audio", str(music), "--out", str(out)]
    result = CliRunner().invoke(data, arguments)
    assert result.exit_code == 1, result.output
    told = [line for line in result.stdout.splitlines() if line.startswith("left out: ")]
    for name, reason in (
        ("B/far", "+80 ms off the onsets"),
        ("B/other", "another version"),
        ("X/same", "2 files fit"),
        ("A/gone", "no file called 'gone.wav'"),
    ):
        assert any(name in line and reason in line for line in told), (name, told)
    assert len(told) == 4
    dataset = open_dataset(out, DataConfig(), ("3", "4"), labelled=False)
    found = find_annotations(dataset.tracks)
    assert sorted(found) == ["0", "1", "5"]
    assert found["0"].grid.times[0] == 0.25
    assert abs(found["1"].grid.times[0] - 0.276) < 0.002
    assert found["1"].grid.provenance.validation["moved"]
    assert (found["0"].events.kinds, found["0"].events.places.tolist()) == (("drop",), [1])
    before = {p: p.read_bytes() for p in sorted(out.rglob("*.json"))}
    assert CliRunner().invoke(data, arguments).exit_code == 1
    assert {p: p.read_bytes() for p in sorted(out.rglob("*.json"))} == before
    (out / "mine.txt").write_text("x")
    assert isinstance(CliRunner().invoke(data, arguments).exception, DataError)


def test_serato_reads_the_tags_of_audio_files(music: Path, tmp_path: Path) -> None:
    mutagen = pytest.importorskip("mutagen.flac")
    folder = tmp_path / "MUSIC"
    folder.mkdir()
    soundfile.write(folder / "a.flac", clicks(), SR, "PCM_16")
    with pytest.raises(DataError, match="no audio file under"):
        read_serato(folder)
    file = mutagen.FLAC(folder / "a.flac")
    grid = b"\x01\x00" + struct.pack(">I", 1) + struct.pack(">ff", 0.25, 120.0) + b"\x00"
    file["SERATO_BEATGRID"] = (
        base64.b64encode(b"application/octet-stream\0\0Serato BeatGrid\0" + grid).decode().rstrip("=")
    )
    file.save()
    (folder / "b.flac").write_bytes(b"no audio")
    result = CliRunner().invoke(data, ["serato", str(folder), "--out", str(tmp_path / "DATA")])
    assert result.exit_code == 1, (result.output, result.exception)
    assert "left out: b.flac: " in result.stdout
    grid = read_annotation(tmp_path / "DATA" / "annotations" / "a.json").grid
    assert grid.times[:2].tolist() == [0.25, 0.75]
    assert grid.provenance.flags == ("downbeats assumed at the grid markers",)


def test_what_is_written_for_rekordbox_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steady = 0.1 + np.arange(200) * 60 / 127.3
    waltz = steady[-1] + 0.5 + np.cumsum(0.6 + 0.002 * rng.standard_normal(60))
    grid = Grid(
        np.concatenate([steady, waltz]), np.concatenate([np.arange(200) % 4 + 1, np.arange(60) % 3 + 1])
    )
    sections = Spans([0.1, steady[64]], [steady[64], waltz[-1]], ("A", "B"), ("", "drop"))
    events = Events([steady[64], steady[96]], ("drop", "cue"), ("", 'say "hi" & <go>'))
    annotation = Annotation("x", 200.7, grid, sections, events, {"title": "T & T"})
    path = tmp_path / "out.xml"
    path.write_text(render_rekordbox([(tmp_path / "Mü sic+#.mp3", annotation)]), encoding="utf-8")
    track = read_rekordbox(path).tracks[0]
    assert (track.location, track.title, track.seconds) == (
        (tmp_path / "Mü sic+#.mp3").as_posix(),
        "T & T",
        200,
    )
    back = expand(track.tempos, float(waltz[-1]) + 0.1, "x")
    assert len(back) == len(grid)
    assert np.abs(back.times - grid.times).max() < 0.005
    assert (back.places[:200] == grid.places[:200]).all()
    assert len(track.tempos) < 60
    assert [(c.kind, c.name) for c in track.cues] == [
        ("memory", "A"),
        ("memory", "drop"),
        ("memory", 'say "hi" & <go>'),
    ]
    assert not any(t.tempos for t in [read_rekordbox(_empty(tmp_path)).tracks[0]])


def test_beats_that_a_program_heard_become_one_tempo_where_the_music_has_one(tmp_path: Path) -> None:
    """Each is off by a few milliseconds; written as they are, a steady song would change its tempo in every
    bar."""
    off = np.random.default_rng(1).uniform(-0.015, 0.015, 400)
    true = np.concatenate(
        [0.2 + np.arange(200) * 60 / 122.5, 0.2 + 200 * 60 / 122.5 + np.arange(200) * 60 / 98.0]
    )
    heard = Grid(true + off, np.arange(400) % 4 + 1, provenance=Provenance("beatmeter", tier=3))
    path = tmp_path / "out.xml"
    path.write_text(render_rekordbox([(tmp_path / "a.wav", Annotation("a", 250.0, heard))]), encoding="utf-8")
    tempos = read_rekordbox(path).tracks[0].tempos
    assert 2 <= len(tempos) <= 4
    assert tempos[0].bpm == pytest.approx(122.5, abs=0.1)
    assert tempos[-1].bpm == pytest.approx(98.0, abs=0.1)
    back = expand(tempos, float(true[-1]) + 0.1, "a")
    assert len(back) == 400
    assert np.abs(back.times - true).max() < 0.03


def test_the_annotations_of_a_data_set_become_an_import(tmp_path: Path) -> None:
    (tmp_path / "a b.wav").write_bytes(b"audio")
    (tmp_path / "a b.beats").write_text("".join(f"{0.1 + 0.5 * i:.3f}\t{i % 4 + 1}\n" for i in range(32)))
    (tmp_path / "a b.lab").write_text("0.1\t8.1\tA\n8.1\t16.1\tB\n")
    out = tmp_path / "import.xml"
    result = CliRunner().invoke(data, ["annotations", "rekordbox", str(tmp_path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    track = read_rekordbox(out).tracks[0]
    assert (track.location, len(track.tempos)) == ((tmp_path / "a b.wav").as_posix(), 1)
    assert [(c.time, c.kind, c.name) for c in track.cues] == [(0.1, "memory", "A"), (8.1, "memory", "B")]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "c.wav").write_bytes(b"audio")
    none = CliRunner().invoke(data, ["annotations", "rekordbox", str(tmp_path / "none"), "--out", str(out)])
    assert "has annotations" in str(none.exception)


def _empty(folder: Path) -> Path:
    path = folder / "empty.xml"
    path.write_text(render_rekordbox([(folder / "a.mp3", Annotation("a"))]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def real(real_data: Path) -> Path:
    if not (real_data / "dj").is_dir():
        pytest.skip("no files of DJ programs here")
    return real_data / "dj"


def test_real_exports_of_rekordbox(real: Path) -> None:
    naively = ours = marks = places = 0
    for path in sorted((real / "rekordbox").rglob("*.xml")):
        library = read_rekordbox(path)
        assert library.tracks
        assert not library.left_out
        for track in library.tracks:
            if track.tempos:
                naively += doubled(naive(track.tempos, (track.seconds or 0) + 1))
                ours += doubled(expand(track.tempos, (track.seconds or 0) + 1, "x").times)
        if path.name == "rekordbox.xml":
            marks = sum(len(t.cues) for t in library.tracks)
            places = sum(len(merge_twins(t.cues)) for t in library.tracks)
    assert (naively > 0, ours) == (True, 0)
    assert (marks, places) == (24, 12)


def test_real_analyses_against_the_export(real: Path) -> None:
    pytest.importorskip("pyrekordbox")
    analyses, left_out = read_analyses(real / "anlz" / "pyrekordbox" / "export")
    assert not left_out
    library = read_rekordbox(real / "rekordbox" / "pyrekordbox" / "rekordbox 6" / "database.xml")
    compared = 0
    for track in library.tracks:
        analysis = analyses[track.location.rsplit("/", 1)[1].lower()]
        if not track.tempos:
            assert analysis.grid is None
            continue
        xml = expand(track.tempos, (track.seconds or 0) + 1, "x")
        n = len(analysis.grid)
        assert n <= len(xml)
        assert np.abs(xml.times[:n] - analysis.grid.times).max() <= 0.0015
        assert (xml.places[:n] == analysis.grid.places).all()
        assert analysis.phrases.functions[0] in ("intro", "chorus")
        compared += n
    assert compared == 368 + 257


def test_real_collections_of_traktor_and_tags_of_serato(real: Path) -> None:
    tracks = read_traktor(real / "traktor" / "collection.nml").tracks
    assert [round(t.tempos[0].bpm) for t in tracks] == [112, 124]
    assert [c.name for c in tracks[1].cues][:5] == ["Drums", "Bassline", "Vocals", "Drop", "Break"]
    grids = [parse_beatgrid(p.read_bytes()) for p in sorted((real / "serato").rglob("beatgrid/*.bin"))]
    assert {round(g[0].bpm) for g in grids} == {115}
    assert len(grids) == 11
    cues = {p.name: parse_markers2(p.read_bytes()) for p in sorted((real / "serato").rglob("markers2/*.bin"))}
    assert len(cues) == 23
    assert [c.name for c in cues["hotcues_with_names.id3.bin"]][:2] == ["Hello, World!", "äöüß"]
    assert cues["hotcue_positions_00m00s0_03m38s4_01m00s0_00m00s1_00m01s0.id3.bin"][1].time == 218.456

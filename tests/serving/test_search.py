"""Embeddings of audio and search among them: bit-equal, in any key and tempo, with reasons; end to end by the
command line."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from beatmeter.audio.encode import encode
from beatmeter.cli import cli
from beatmeter.datasets.synth.versions import render_version
from beatmeter.errors import BeatmeterError, ConfigError, DataError, RunError
from beatmeter.evaluation.figures.collection import collection_map
from beatmeter.evaluation.figures.style import to_svg
from beatmeter.features.alignment import RULE
from beatmeter.features.landmarks import ABOUT, ARRAYS, Landmarks
from beatmeter.features.whitening import Whitening
from beatmeter.learning.landmarks import Plan, fit, fit_whitening
from beatmeter.schema import Embeddings, Track
from beatmeter.serving.embedding import embed_tracks, embed_wave, open_model
from beatmeter.serving.gallery import fill, open_gallery
from beatmeter.serving.index import Index
from beatmeter.serving.search import Searcher, beside_all_others

WORKS, VERSIONS, SECONDS = (101, 102, 103), (0, 1), 9.0


@pytest.fixture(scope="module")
def model() -> Landmarks:
    return fit(Plan(works=6, versions=2, landmarks=12, seconds=6.0, seed=1))


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    lines = ["file,work,room"]
    for work in WORKS:
        for v in VERSIONS:
            audio = render_version(work, v, seconds=SECONDS).clip.audio
            (folder / f"{work}-{v}.wav").write_bytes(encode(audio, 24_000, "WAV", "PCM_16"))
            lines.append(f"{work}-{v}.wav,{work},room {v}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def gallery(music: Path, model: Landmarks) -> Embeddings:
    tracks = [
        Track(f"{w}-{v}", music / f"{w}-{v}.wav", extra={"work": str(w)}) for w in WORKS for v in VERSIONS
    ]
    record, failed = embed_tracks(tracks, model, label="work")
    assert not failed
    return record


def test_a_file_has_the_same_bits_alone_in_a_batch_and_in_another_process(
    music: Path, gallery: Embeddings, model: Landmarks
) -> None:
    tracks = [Track("x", music / "102-1.wav"), Track("y", music / "101-0.wav")]
    alone, _ = embed_tracks(tracks[:1], model)
    processes, _ = embed_tracks(tracks, model, jobs=2)
    at = gallery.ids.index("102-1")
    for record in (alone, processes):
        assert record.vectors[0].tobytes() == gallery.vectors[at].tobytes()
        assert record.views[0].tobytes() == gallery.views[at].tobytes()
    assert gallery.labels == ("101", "101", "102", "102", "103", "103")
    assert np.allclose(np.linalg.norm(gallery.vectors, axis=1), 1, atol=1e-5)


def test_alignment_finds_the_other_version_and_says_where(gallery: Embeddings) -> None:
    searcher = Searcher(gallery)
    first = [searcher.find(gallery.take([i]), 1, rerank=True)[0] for i in range(len(gallery))]
    right = [gallery.labels[hit.item] == gallery.labels[i] for i, hit in enumerate(first)]
    assert sum(right) >= 5
    item = gallery.ids.index("101-1")
    reasons = searcher.why(searcher.item("101-0"), item)
    assert set(reasons.percentiles) == {"harmony", "rhythm", "timbre"}
    assert all(0 <= value <= 100 for value in reasons.percentiles.values())
    assert reasons.here[1] - reasons.here[0] > 2
    assert 0 <= reasons.there[0] < reasons.there[1] <= SECONDS


def test_all_pairs_are_judged_by_what_either_reaches_with_all_others() -> None:
    raw = np.random.default_rng(0).random((5, 5))
    raw += raw.T
    found = beside_all_others(raw)
    rows = [np.delete(raw[i], i) for i in range(5)]
    by = [(raw[1, 3] - rows[i].mean()) / rows[i].std() for i in (1, 3)]
    assert found[1, 3] == pytest.approx(sum(by))
    np.testing.assert_allclose(found, found.T)


def test_neighbours_are_exact_and_leave_the_query_out(gallery: Embeddings) -> None:
    searcher = Searcher(gallery)
    hits = searcher.find(searcher.item("102-0"), 3)
    cosines = gallery.unit @ gallery.unit[2]
    cosines[2] = -np.inf
    assert [hit.item for hit in hits] == np.argsort(-cosines)[:3].tolist()
    assert hits[0].cosine == pytest.approx(float(cosines.max()))


def test_an_index_on_disk_finds_and_explains_what_the_file_does(tmp_path: Path, gallery: Embeddings) -> None:
    gallery = replace(
        gallery, chroma=tuple(c.astype("f2").astype("f4") for c in gallery.chroma)
    )  # as in files
    index, new = fill(tmp_path / "i", gallery.take([0, 1, 2]))
    assert (new, len(index)) == (3, 3)
    assert fill(tmp_path / "i", gallery)[1] == 3  # what is there counts for nothing
    for build in (False, True):
        if build:
            Index.open(tmp_path / "i").build_cells(recall=1.0)
        here, there = Searcher(gallery), Searcher(open_gallery(tmp_path / "i"))
        for name in gallery.ids:
            mine, theirs = here.item(name), there.item(name)
            a, b = here.find(mine, 3, rerank=True), there.find(theirs, 3, rerank=True)
            names = there.gallery.take([hit.item for hit in b]).ids
            assert names == tuple(gallery.ids[hit.item] for hit in a)
            assert [hit.aligned for hit in a] == pytest.approx([hit.aligned for hit in b])
            assert here.why(mine, a[0].item) == there.why(theirs, b[0].item)
            assert len(there.find(theirs, 50)) == 5  # the query itself is left out
    with pytest.raises(DataError, match="vectors of another model"):
        fill(tmp_path / "i", replace(gallery, meta={"model": "x"}))
    with pytest.raises(DataError, match="101-1"):
        there.item("101-11")
    Index.create(tmp_path / "bare", 12)
    with pytest.raises(DataError, match="does not say which model"):
        open_gallery(tmp_path / "bare")


def test_parts_of_a_long_track_have_times(model: Landmarks) -> None:
    wave = render_version(7, 0, seconds=45.0).clip.audio
    found = embed_wave(wave, model, "chunk")
    assert len(found.vectors) == len(found.times) == len(found.chroma) == 4
    assert found.times[0].tolist() == [0, 20]
    assert found.times[-1, 1] == pytest.approx(45, abs=0.3)
    assert np.allclose(np.diff(found.times, axis=1), 20, atol=0.3)


def test_silence_has_no_direction(model: Landmarks) -> None:
    found = embed_wave(np.zeros(24_000 * 6, np.float32), model)
    assert np.isfinite(found.vectors).all()


def test_a_model_comes_back_from_its_folder_and_a_broken_one_is_one_line(
    tmp_path: Path, model: Landmarks
) -> None:
    model.save(tmp_path / "m")
    back = open_model(str(tmp_path / "m"))
    assert back.about == model.about
    wave = render_version(7, 1, seconds=6.0).clip.audio
    again = Landmarks.load(tmp_path / "m")
    assert embed_wave(wave, back).vectors.tobytes() == embed_wave(wave, again).vectors.tobytes()
    assert embed_wave(wave, back).vectors[0] @ embed_wave(wave, model).vectors[0] > 0.99
    about = tmp_path / "m" / ABOUT
    written = about.read_text()
    about.write_text(written.replace(f'"threshold": {RULE.threshold}', '"threshold": 0.35'))
    with pytest.raises(RunError, match="another rule of alignment"):
        Landmarks.load(tmp_path / "m")
    about.write_text(written)
    (tmp_path / "m" / ARRAYS).write_bytes(b"PK")
    with pytest.raises(RunError, match="no model of harmony"):
        Landmarks.load(tmp_path / "m")
    (tmp_path / "m" / ABOUT).unlink()
    with pytest.raises(RunError):
        Landmarks.load(tmp_path / "m")


def test_what_cannot_be_compared_is_refused(gallery: Embeddings, model: Landmarks) -> None:
    searcher = Searcher(gallery)
    with pytest.raises(DataError, match="another model"):
        searcher.find(replace(gallery.take([0]), meta={"model": "x"}), 1)
    with pytest.raises(DataError, match="101-1") as told:
        searcher.item("101-11")
    assert "102-0, 102-1, 103-0, 103-1" not in str(told.value)  # of a thousand ids a few are enough
    bare = replace(gallery, chroma=tuple(np.zeros((0, 12), np.float32) for _ in gallery.ids))
    with pytest.raises(DataError, match="no pitch classes"):
        Searcher(bare).find(bare.take([0]), 1, rerank=True)
    with pytest.raises(ConfigError, match="there is no embedding 'harmonie'"):
        open_model("harmonie")
    with pytest.raises(ConfigError, match="no embedding can be learned"):
        Plan(works=1)


def test_the_command_line_from_audio_to_reasons(tmp_path: Path, music: Path, model: Landmarks) -> None:
    model.save(tmp_path / "m")
    mine, out = str(tmp_path / "m"), str(tmp_path / "e.npz")

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, arguments)
        if isinstance(result.exception, BeatmeterError):
            return 2, str(result.exception)
        return result.exit_code, result.output

    (music / "noise.wav").write_bytes(b"RIFF")
    (music / "manifest.csv").write_text((music / "manifest.csv").read_text() + "noise.wav,x,\n")
    status, text = run("embed", mine, str(music), "--label", "work", "--out", out)
    assert status == 1
    assert "6 vectors of 12 numbers" in text
    assert "noise" in text
    status, text = run("similarity", "score", out, "--data", str(music), "--factors", "work", "--json")
    assert status == 0
    ways = json.loads(text)["ways"]
    assert set(ways["vectors"]["metrics"]) == {"mAP", "MAP@R", "hit@1", "hit@10", "MR1"}
    table = ("similarity", "score", out, "--data", str(music), "--factors", "room", "--by", "work")
    status, text = run(*table, "--rerank", "all")
    assert status == 0
    for name in ("50 nearest aligned", "all pairs aligned", "hubness", "hit@10 by work", "room"):
        assert name in text
    assert {line.split()[0] for line in text.splitlines() if line} >= {
        "mAP",
        "101",
        "103",
        "rhythm",
        "timbre",
    }
    for wrong, said in (
        (("--factors", "wrok", "--data", str(music)), "no column"),
        (("--by", "work"), "Name it with --data"),
        (("--factors", "work~x", "--data", str(music)), "NAME~0.04"),
    ):
        status, text = run("similarity", "score", out, *wrong)
        assert (status, said in text) == (2, True)
    query = str(music / "101-1.wav")
    status, text = run(
        "search", out, query, "--model", mine, "-k", "2", "--rerank", "align", "--why", "--json"
    )
    assert status == 0
    hits = json.loads(text)["hits"]
    assert len(hits) == 2
    assert {"percentiles", "key", "here", "there", "aligned", "cosine"} <= set(hits[0])
    place, page = str(tmp_path / "index"), tmp_path / "hits.html"
    assert run("index", "add", place, out, out)[0] == 0
    status, text = run("index", "remove", place, "103-1.wav", "103-9")
    assert (status, "1 vectors removed" in text, "not there: 103-9" in text) == (1, True, True)
    status, text = run("index", "build", place)
    assert (status, "over 5 vectors, " in text) == (0, True)
    assert ", measured over 5 vectors" in run("index", "info", place)[1]
    assert json.loads(run("index", "info", place, "--json")[1])["vectors"] == 5
    more = ("-k", "3", "--exact", "--model", mine, "--html", str(page), "--audio", str(music))
    assert run("search", place, query, *more)[0] == 0
    html = page.read_text()
    assert html.count("<audio") == 4
    assert "101-0" in html
    for name in ("map.svg", "map.png", "map.csv"):
        status, text = run("map", out, "--out", str(tmp_path / name), "--mark", "102")
        assert (status, "6 vectors in" in text) == (0, True)
    assert (tmp_path / "map.csv").read_text().splitlines()[1].startswith("101-0.wav,101,")
    assert (tmp_path / "map.svg").read_text().count(">103<") == 1
    assert run("map", place, "--out", str(tmp_path / "index.svg"))[0] == 0
    drawn = collection_map(np.eye(3)[:, :2], None, ["", "", ""], names=["one.wav", "two.wav", "3.wav"])
    assert ">two.wav<" in to_svg(drawn, "map")  # few tracks without labels have names
    drawing = str(tmp_path / "near.svg")
    status, text = run("map", out, "--out", drawing, "--by", "umap")
    if find_spec("umap"):
        assert (status, "variance" in text) == (0, False)
    else:
        assert (status, "pip install 'beatmeter[umap]'" in text) == (2, True)
    for wrong, said in (
        (("map", out, "--out", "map.pdf"), "no name for a map"),
        (("map", out, "--out", str(tmp_path / "m.svg"), "--mark", "x"), "no track has the label"),
        (("index", "add", place, query), "neither a file of vectors"),
        (("index", "info", str(music)), "is no index"),
        (("search", out, "101-1.wav", "--html", str(page), "--audio", "nowhere"), "no audio folder"),
    ):
        status, text = run(*wrong)
        assert (status, said in text) == (2, True), text
    status, text = run("search", out, "nothing.wav")
    assert status == 2
    assert "no file and no id" in text
    status, text = run("embed", mine, str(music), "--label", "wrok", "--out", out)
    assert (status, "'wrok' is no column" in text) == (2, True)


def test_whitened_features_have_the_same_bits_anywhere_and_are_not_mixed_with_harmony(
    tmp_path: Path, music: Path, gallery: Embeddings
) -> None:
    fitted = fit_whitening(Plan(works=4, versions=2, seconds=3.0, seed=1))
    tracks = [Track(n, music / f"{n}.wav") for n in ("102-1", "101-0")]
    record, _ = embed_tracks(tracks, fitted)
    again, _ = embed_tracks(tracks[:1], fitted, jobs=2)
    assert record.vectors[0].tobytes() == again.vectors[0].tobytes()
    assert np.allclose(np.linalg.norm(record.vectors, axis=1), 1, atol=1e-5)
    wave = render_version(7, 0, seconds=25.0).clip.audio
    parts = embed_wave(wave, fitted, "chunk")
    assert len(parts.vectors) == 2
    assert parts.vectors[0] @ embed_wave(wave[: 24_000 * 20], fitted).vectors[0] > 0.99
    fitted.save(tmp_path / "w")
    back = open_model(str(tmp_path / "w"))
    assert isinstance(back, Whitening)
    assert np.allclose(back.matrix, fitted.matrix, rtol=1e-6)
    with pytest.raises(DataError, match="another model"):
        Searcher(gallery).find(record.take([0]), 1)
    (tmp_path / "w" / ARRAYS).write_bytes(b"PK")
    with pytest.raises(RunError, match="is no whitening"):
        open_model(str(tmp_path / "w"))

"""Run and checkpoint folders whose files were cut, edited, swapped, emptied or replaced by folders and pipes,
through the commands that read them: one line that names the file, exit status 1 or 2, never a traceback. What
a command does not read may not hurt it.

By default every damage meets one of the commands that read the file, in turn, and all of them with
BEATMETER_FULL=1.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hubfolders import write_hub_folder
from safetensors import safe_open
from safetensors.torch import save_file

from beatmeter.cli import main
from beatmeter.evaluation.predictions import read_predictions, write_predictions
from beatmeter.runtime.config import change, differences, to_toml
from beatmeter.settings import RunConfig

FULL = bool(int(os.environ.get("BEATMETER_FULL", "0")))
Damage = Callable[[Path], None]


def said_by(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, handlers = sys.argv, (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    sys.argv = ["beatmeter", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, handlers[0])
        signal.signal(signal.SIGINT, handlers[1])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished and calibrated runs, `a` and `b`, and their ensemble `both`."""
    home = tmp_path_factory.mktemp("whole")
    values = {
        "data": {"path": str(clips)},
        "features": {"backbone": "spectral", "cache": str(home / "cache"), "window": 2},
        "head": {"poolings": ("stats", "lag"), "channels": 8, "hidden": 16, "dilations": (1, 2)},
        "training": {"epochs": 20, "head_lr": 1e-2, "batch": 4, "accumulation": 2, "patience": 20},
    }
    (home / "recipe.toml").write_text(to_toml(differences(change(RunConfig(), values), RunConfig())))
    for seed, name in enumerate("ab"):
        order = (
            "train",
            clips,
            "--frozen",
            "--recipe",
            home / "recipe.toml",
            "--seed",
            str(seed),
            "--out",
            home / name,
            "--device",
            "cpu",
        )
        status, _, err = said_by(*order)
        assert status == 0, err
        for split in ("val", "test"):
            clear(home / name / "predictions" / f"{split}.csv")
        status, _, err = said_by("calibrate", home / name, "--sounds", "0")
        assert status == 0, err
    status, _, err = said_by("ensemble", home / "a", home / "b", "--calibrated", "--out", home / "both")
    assert status == 0, err
    return home


def clear(path: Path) -> None:
    """Make predictions ten times as many and nearly always right: those of so small a run are worth no
    calibration."""
    p = read_predictions(path)
    many = p.take([i for _ in range(10) for i in range(len(p))])
    scores = (
        0.15 + 0.7 * (many.targets > 0) + np.random.default_rng(0).uniform(-0.14, 0.14, many.targets.shape)
    )
    scores[::9] = scores[::9, ::-1]
    ids = tuple(f"{i}-{name}" for i, name in enumerate(many.ids))
    write_predictions(path, replace(many, ids=ids, groups=ids, scores=scores))


def song(clips: Path) -> Path:
    return sorted((clips / "audio").iterdir())[0]


COMMANDS: dict[str, Callable[[Path, Path], tuple[str | Path, ...]]] = {
    "predict": lambda home, clips: ("predict", home / "a", song(clips), "--json", "--device", "cpu"),
    "timeline": lambda home, clips: ("timeline", home / "a", song(clips), "--json", "--device", "cpu"),
    "evaluate": lambda home, clips: ("evaluate", home / "a", "--split", "test", "--json", "--device", "cpu"),
    "report": lambda home, clips: ("report", home / "a", "--seconds", "0", "--out", home / "page.html"),
    "calibrate": lambda home, clips: ("calibrate", home / "a", "--sounds", "0", "--json"),
    "resume": lambda home, clips: ("train", "--resume", home / "a", "--device", "cpu"),
    "ensemble": lambda home, clips: (
        "ensemble",
        home / "a",
        home / "b",
        "--calibrated",
        "--out",
        home / "new",
    ),
    "compare": lambda home, clips: ("compare", home / "b", home / "a", "--separate", "--json"),
    "pack": lambda home, clips: ("models", "pack", home / "a", "--out", home / "packed"),
    "joined": lambda home, clips: ("predict", home / "both", song(clips), "--json", "--device", "cpu"),
}

READS = {  # file -> the commands that cannot do without it
    "a/config.toml": ("predict", "timeline", "evaluate", "resume", "joined"),
    "a/best.safetensors": ("predict", "timeline", "evaluate", "joined"),
    "a/last.safetensors": ("resume",),
    "a/run.json": ("predict", "evaluate", "resume", "report"),
    "a/epochs.jsonl": ("resume", "report"),
    "a/best.json": ("report",),
    "a/split.csv": ("evaluate",),
    "a/excluded.csv": ("report",),
    "a/calibration.json": ("predict", "timeline", "report", "ensemble", "joined"),
    "a/predictions/val.csv": ("calibrate", "ensemble", "pack"),
    "a/predictions/test.csv": ("report", "compare", "ensemble"),
    "a/predictions/test.meta.json": ("report", "compare", "ensemble"),
    "both/ensemble.json": ("joined",),
    "both/members.json": ("joined",),
}


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00caf\xe9\n" * 50)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def put(text: str) -> Damage:
    return lambda path: path.write_text(text) and None


def swap(old: str, new: str) -> Damage:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text, (path, old)
        path.write_text(text.replace(old, new, 1))

    return edit


def append(text: str) -> Damage:
    return lambda path: path.write_text(path.read_text() + text) and None


def field(name: str, value: object) -> Damage:
    """One value of a JSON object, by its dotted name; Ellipsis takes it away."""

    def edit(path: Path) -> None:
        whole = at = json.loads(path.read_text())
        *parents, last = name.split(".")
        for parent in parents:
            at = at[parent]
        assert last in at, name
        if value is ...:
            del at[last]
        else:
            at[last] = value
        path.write_text(json.dumps(whole))

    return edit


def tensor(
    change_it: Callable[[dict[str, torch.Tensor]], None],
    about: Callable[[dict[str, str]], None] = lambda about: None,
) -> Damage:
    """A safetensors file with other tensors, or another header."""

    def edit(path: Path) -> None:
        with safe_open(path, "pt") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
            header = dict(file.metadata() or {})
        change_it(tensors)
        about(header)
        path.unlink()
        save_file(tensors, path, header)

    return edit


def same(tensors: dict[str, torch.Tensor]) -> None:
    pass


def header(name: str, value: object) -> Damage:
    def edit(about: dict[str, str]) -> None:
        values = at = json.loads(about["beatmeter"])
        *parents, last = name.split(".")
        for parent in parents:
            at = at[parent]
        at[last] = value
        if value is ...:
            del at[last]
        about["beatmeter"] = json.dumps(values)

    return tensor(same, edit)


def one(tensors: dict[str, torch.Tensor]) -> str:
    """A weight of the head."""
    return next(name for name in sorted(tensors) if name.startswith("head.") and tensors[name].ndim == 2)


def filled(value: float) -> Damage:
    return tensor(lambda tensors: tensors[one(tensors)].view(-1)[:1].fill_(value) and None)


def reshaped(tensors: dict[str, torch.Tensor]) -> None:
    tensors[one(tensors)] = torch.zeros(3, 5)


def missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[one(tensors)]


def stranger(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head.stranger"] = torch.zeros(2)


def whole_numbers(tensors: dict[str, torch.Tensor]) -> None:
    tensors[one(tensors)] = tensors[one(tensors)].to(torch.int64)


def no_moments(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("exp_avg")]:
        del tensors[name]


def odd_moments(tensors: dict[str, torch.Tensor]) -> None:
    tensors["optimiser.999.exp_avg"] = torch.zeros(1)


GENERIC = {
    "empty": empty,
    "half": half,
    "garbage": garbage,
    "a folder": folder,
    "a pipe": pipe,
    "a loop": loop,
}
LACKING = {  # what a file may be without harm: a log may be empty, a table cut between two rows still is one
    ("a/epochs.jsonl", "empty"),
    ("a/epochs.jsonl", "half"),
    ("a/config.toml", "empty"),
    ("a/config.toml", "half"),
    ("a/config.toml", "a loop"),
    ("a/excluded.csv", "empty"),
    ("a/excluded.csv", "half"),
}
JSON_FILES = [name for name in READS if name.endswith(".json")]
SPECIFIC: dict[str, dict[str, Damage]] = {
    "a/config.toml": {
        "not toml": put("a = [1,"),
        "an unknown key": append("\n[nothing]\na = 1\n"),
        "a group as a number": put("training = 3\n"),
        "a list for a text": put("[data]\npath = [1]\n"),
        "nan": put("[training]\nhead_lr = nan\n"),
        "a huge rate": put("[training]\nhead_lr = 1e300\n"),
        "a huge number": put("[training]\nhead_lr = 1" + "0" * 400 + "\n"),
        "a huge head": put("[head]\nhidden = 1000000000000\n"),
        "a huge convolution": put("[head]\nchannels = 1000000000\n"),
        "a huge kernel": put("[head]\nkernel = 1000000000\n"),
        "a dilation of nothing": put("[head]\ndilations = [0]\n"),
        "many classes": put("[task]\nclasses = [" + ",".join(f'"{i}"' for i in range(20_000)) + "]\n"),
        "one class twice": put('[task]\nclasses = ["3", "3"]\n'),
        "another task": put('[task]\nname = "tempo"\n'),
        "a negative seed": put("seed = -1\n"),
        "a huge seed": put(f"seed = {10**30}\n"),
        "another backbone": put('[features]\nbackbone = "spectra"\n'),
        "an impossible layer": put('[features]\nbackbone = "spectral"\nlayers = "7-3"\n'),
    },
    "a/best.safetensors": {
        "a nan": filled(float("nan")),
        "an infinity": filled(float("inf")),
        "another shape": tensor(reshaped),
        "one tensor less": tensor(missing),
        "one tensor more": tensor(stranger),
        "whole numbers": tensor(whole_numbers),
        "no tensors": tensor(lambda tensors: tensors.clear()),
        "no header": tensor(same, lambda about: about.clear()),
        "a header that is no json": tensor(same, lambda about: about.update(beatmeter="{")),
        "another format": header("format", 99),
        "no spec": header("spec", ...),
        "a spec that is none": header("spec", {"a": 1}),
        "a spec of text": header("spec", "spectral"),
        "a huge spec": header("spec.dim", 10**30),
        "poolings that are none": header("spec.poolings", [1, 2]),
        "a chunk that is none": header("spec.chunk", []),
        "no task": header("task", ...),
        "weights of text": header("task.weight", ["a"] * 6),
        "few weights": header("task.weight", [1.0]),
        "an epoch of text": header("epoch", "one"),
    },
    "a/last.safetensors": {
        "a nan": filled(float("nan")),
        "another shape": tensor(reshaped),
        "one tensor less": tensor(missing),
        "no moments": tensor(no_moments),
        "moments of nothing": tensor(odd_moments),
        "no best epoch": header("best", ...),
        "a best epoch without figures": header("best.val", {}),
        "an epoch of text": header("epoch", "one"),
    },
    "a/run.json": {
        "a list": put("[]"),
        "data of text": field("data", "here"),
        "a split of numbers": field("split.tracks", 3),
        "places of nothing": field("places", {"run": 1, "cwd": None}),
        "nan": swap('"seed": 0', '"seed": NaN'),
        "half a character": swap('"machine": "', '"machine": "\\ud800'),
    },
    "a/epochs.jsonl": {
        "a damaged line in the middle": lambda path: path.write_text('{"epo\n' + path.read_text()) and None,
        "a list": lambda path: path.write_text("[1]\n" + path.read_text()) and None,
        "no number of an epoch": lambda path: path.write_text("{}\n" + path.read_text()) and None,
        "an epoch of text": swap('"epoch": 1', '"epoch": "one"'),
        "a huge epoch": swap('"epoch": 1', '"epoch": ' + "9" * 400),
        "nan": swap('"epoch": 1', '"epoch": 1, "seen": NaN'),
        "weights of text": swap('"layer_weights": {', '"layer_weights": {"a": ["b"], '),
    },
    "a/best.json": {"an epoch of text": field("epoch", "one"), "no epoch": field("epoch", ...)},
    "a/split.csv": {
        "other columns": put("a,b\n1,2\n"),
        "another split": swap(",train", ",training"),
        "other ids": put("id,group,split\nx,x,test\n"),
    },
    "a/calibration.json": {
        "nan": swap('"prevalence": {', '"prevalence": {"x": NaN,'),
        "infinity": swap('"prevalence": {', '"prevalence": {"x": 1e999,'),
        "another format": field("format", 99),
        "no classes": field("classes", ...),
        "classes of numbers": field("classes", [3, 4]),
        "other classes": field("classes", ["3", "4"]),
        "maps of text": field("maps", "none"),
        "a kind that is none": field("maps.3", {"kind": "magic"}),
        "a slope of text": field("maps.3", {"kind": "temperature", "slope": "steep"}),
        "a curve of text": field("maps.3", {"kind": "isotonic", "at": "a", "value": "b"}),
        "half a curve": field("maps.3", {"kind": "isotonic", "at": [0.1, 0.2], "value": [0.5]}),
        "no thresholds": field("thresholds", {}),
        "thresholds of text": field("thresholds.production", {"3": "high"}),
    },
    "a/predictions/test.csv": {
        "a nan": lambda path: path.write_text(_last_cell(path.read_text(), "nan")) and None,
        "an infinity": lambda path: path.write_text(_last_cell(path.read_text(), "1e999")) and None,
        "a cell more": append("a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z\n"),
        "a quote that never closes": append('"'),
        "another file": put("a;b;c\n1;2;3\n"),
    },
    "a/predictions/test.meta.json": {
        "another hash": field("sha256", "0"),
        "nan": swap('"items":', '"nan": NaN, "items":'),
    },
    "both/ensemble.json": {
        "nan": swap('"weights": {', '"weights": {"x": NaN,'),
        "another format": field("format", 99),
        "no members": field("members", []),
        "another method": field("method", "vote"),
        "weights of nothing": field("weights", {}),
        "negative weights": field("weights", {"a": -1.0, "b": 2.0}),
        "other classes": field("classes", ["3", "4"]),
    },
    "both/members.json": {
        "runs of numbers": field("runs", {"a": 1, "b": 2}),
        "no runs": field("runs", {}),
        "runs that are gone": field("runs", {"a": "../gone", "b": "../gone"}),
        "calibrated of text": field("calibrated", "yes"),
    },
}


def _last_cell(text: str, cell: str) -> str:
    return text.rstrip("\n").rpartition(",")[0] + f",{cell}\n"


DAMAGES = [
    (name, kind, make) for name in READS for kind, make in {**GENERIC, **SPECIFIC.get(name, {})}.items()
]
DAMAGES += [
    (name, f"json: {text[:6]}", put(text))
    for name in JSON_FILES
    for text in ("null", '{"a": ' * 5000, '"text"')
]


def cases() -> Iterator[object]:
    turn = itertools.count()
    for name, kind, make in DAMAGES:
        readers = READS[name] if FULL else (READS[name][next(turn) % len(READS[name])],)
        for command in readers:
            yield pytest.param(name, kind, make, command, id=f"{name}: {kind}: {command}")


def copied(whole: Path, home: Path) -> Path:
    """The runs and the ensemble; the cache is where it was."""
    for name in ("a", "b", "both"):
        shutil.copytree(whole / name, home / name)
    return home


def require_told(status: int, out: str, err: str, names: tuple[str, ...], refused: bool) -> None:
    assert "Traceback" not in err
    assert status in ((1, 2) if refused else (0, 1, 2)), (status, out, err)
    assert "NaN" not in out
    assert "Infinity" not in out
    if status:
        last = err.strip().splitlines()[-1]
        assert last.startswith("error: "), err
        assert any(name in last for name in names), last


def test_there_are_as_many_as_we_say() -> None:
    assert len(DAMAGES) >= 128


@pytest.mark.parametrize(("name", "kind", "make", "command"), list(cases()))
def test_a_damaged_run_is_one_line(
    name: str, kind: str, make: Damage, command: str, whole: Path, clips: Path, tmp_path: Path
) -> None:
    home = copied(whole, tmp_path)
    make(home / name)
    status, out, err = said_by(*COMMANDS[command](home, clips))
    names = (
        Path(name).name,
        str(home / "a"),
        str(home / "both"),
        *(("MERT",) if (name, kind) in LACKING else ()),
    )
    require_told(status, out, err, names, (name, kind) not in LACKING)


@pytest.mark.parametrize("name", READS)
def test_what_a_command_does_not_read_does_not_hurt_it(
    name: str, whole: Path, clips: Path, tmp_path: Path
) -> None:
    others = [command for command in COMMANDS if command not in READS[name]]
    for n, command in enumerate(others if FULL else others[:1]):
        home = tmp_path / str(n)
        home.mkdir()
        copied(whole, home)
        (garbage if n % 2 else pipe)(home / name)
        require_told(*said_by(*COMMANDS[command](home, clips)), (Path(name).name, str(home)), refused=False)


def test_a_half_line_at_the_end_of_the_log_is_left_out_and_said(
    whole: Path, clips: Path, tmp_path: Path
) -> None:
    home = copied(whole, tmp_path)
    log = home / "a" / "epochs.jsonl"
    before = log.read_text()
    log.write_text(before + '{"epoch": 21, "tra')
    status, _, err = said_by(*COMMANDS["report"](home, clips))
    assert status == 0, err
    assert "epochs.jsonl:21: the last line was cut" in err
    status, _, err = said_by(*COMMANDS["resume"](home, clips))
    assert status == 0, err
    assert log.read_text() == before


CHECKPOINT: dict[str, dict[str, Damage]] = {
    "config.json": {
        **GENERIC,
        "null": put("null"),
        "nan": swap("{", '{"layer_norm_eps": NaN,'),
        "huge layers": field("num_hidden_layers", 10**9),
        "huge width": field("hidden_size", 2**40),
        "huge inside": field("intermediate_size", 2**40),
        "huge convolution": field("conv_dim", [2**40] * 7),
        "huge stride": field("conv_stride", [10**9] * 7),
        "many convolutions": field("conv_dim", [16] * 100_000),
        "huge positions": field("num_conv_pos_embeddings", 10**12),
        "no heads": field("num_attention_heads", 0),
        "negative heads": field("num_attention_heads", -4),
        "heads of text": field("num_attention_heads", "four"),
        "no epsilon": field("layer_norm_eps", -1.0),
        "dropout above 1": field("hidden_dropout", 7.0),
        "another network": field("model_type", "bert"),
    },
    "preprocessor_config.json": {
        "empty": empty,
        "half": half,
        "garbage": garbage,
        "a list": put("[]"),
        "a rate of text": field("sampling_rate", "fast"),
        "a rate of 0": field("sampling_rate", 0),
        "a huge rate": field("sampling_rate", 10**12),
        "a small rate": field("sampling_rate", 1),
        "normalising of text": field("do_normalize", "yes"),
    },
    "model.safetensors": {**GENERIC, "no tensors": tensor(lambda tensors: tensors.clear())},
}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        pytest.param(name, make, id=f"{name}: {kind}")
        for name, damages in CHECKPOINT.items()
        for kind, make in damages.items()
    ],
)
def test_a_damaged_checkpoint_is_one_line(name: str, make: Damage, clips: Path, tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "hub", weights="model.safetensors")
    make(tmp_path / "hub" / name)
    arguments = (
        "extract",
        song(clips),
        "--set",
        f"features.backbone={tmp_path / 'hub'}",
        "--cache",
        tmp_path / "cache",
        "--device",
        "cpu",
    )
    require_told(*said_by(*arguments), (name, "hub"), refused=True)

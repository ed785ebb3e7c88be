"""Ablations: plans are read strictly, every cell is a run that is kept, and the table says what `compare`
says."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from waiting import PATIENCE

from beatmeter.cli import cli
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import BeatmeterError, ConfigError, DataError, RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.ablation import execution
from beatmeter.experiments.ablation.execution import FAILED, execute, units_of
from beatmeter.experiments.ablation.plan import load_plan, shipped_plans
from beatmeter.runtime.config import change, differences, to_toml
from beatmeter.runtime.parallel import Crash
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """54 clips of one chunk, 12 of them to validate with; their features lie beside them after the first
    run."""
    folder = tmp_path_factory.mktemp("ablation")
    synthesise(folder / "clips", 54, SynthPlan(seconds=5.0, val=0.2))
    return folder


@pytest.fixture
def config(config: RunConfig, music: Path) -> RunConfig:
    """The folder's quick settings on these clips."""
    return change(
        config,
        {
            "data": {"path": str(music / "clips")},
            "features": {"cache": str(music / "cache")},
            "head": {"poolings": ("stats",)},
        },
    )


@pytest.fixture
def plan(config: RunConfig, tmp_path: Path) -> Path:
    """Two values of dropout, two seeds."""
    small = {
        "data": {"path": ""},
        "features": {"cache": RunConfig().features.cache},
        "training": {"epochs": 2},
    }
    (tmp_path / "quick.toml").write_text(to_toml(differences(change(config, small), RunConfig())))
    text = (
        'title = "Dropout"\nquestion = "How much?"\nrecipe = ["quick.toml"]\nseeds = "0-1"\nbaseline = '
        '"dropout 0.5"\n'
    )
    (tmp_path / "dropout.toml").write_text(
        f'{text}metrics = ["balanced_accuracy", "accuracy", "log_loss"]\n[grid]\n"head.dropout" = [0.1, '
        "0.5]\n"
    )
    return tmp_path / "dropout.toml"


def ablate(plan: Path, config: RunConfig, *more: str, jobs: int = 1) -> Result:
    """The command on the clips of this folder, into `out` beside the plan."""
    places = ["--cache", config.features.cache, "--out", str(plan.parent / "out"), "--jobs", str(jobs)]
    return CliRunner().invoke(cli, ["ablate", str(plan), config.data.path, *places, *more])


# plans


def test_the_plans_that_ship_vary_what_they_say() -> None:
    configs = {}
    for name in shipped_plans():
        plan = load_plan(name)
        extra = ["more"] if plan.needs_extra else []
        systems = plan.cells(plan.changed(), Path("data"), Path("cache"), Path("out"), extra, layers=6)
        assert all(len(cells) >= 3 for system, cells in systems.items() if system not in plan.own_seeds), name
        configs[name] = {system: cells[0].config for system, cells in systems.items()}
    assert [c.task.smoothing for c in configs["smoothing"].values()] == [0.0, 0.02, 0.05, 0.1, 0.2]
    assert [(c.adapter.r, c.adapter.alpha / c.adapter.r) for c in configs["lora-rank"].values()] == [
        (4, 2),
        (8, 2),
        (16, 2),
        (32, 2),
    ]
    assert {c.regime for c in configs["lora-rank"].values()} == {"streamed"}
    assert [c.regime for c in configs["frozen-or-lora"].values()] == ["frozen", "streamed"]
    assert [c.data.extra for c in configs["extra-data"].values()] == [(), ("more",)]
    assert [(c.augment.crop, c.augment.shift) for c in configs["phase-augmentation"].values()] == [
        (0.0, 0.0),
        (0.5, 0.5),
    ]
    assert [c.features.layers for c in configs["layers"].values()] == [
        "all",
        "all",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
    ]
    assert [c.training.mix_lr for c in configs["layers"].values()][:2] == [RunConfig().training.mix_lr, 0.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('titel = "x"', r"unknown key 'titel'. Did you mean 'title'"),
        ("title = 3", r"title = 3 must be a str"),
        (
            '[grid]\n"task.smoothin" = [0, 0.1]',
            r"unknown setting 'task.smoothin'. Did you mean 'task.smoothing'",
        ),
        ('[grid]\n"task.smoothing" = 0.1', r"must be a list"),
        ('[grid]\n"task.smoothing" = [0.1, 2.0]', r"smoothing = 2.0 must be in \[0, 1\)"),
        ('[grid]\n"task.smoothing" = [0.1]', r"1 systems, two are needed"),
        (
            'metrics = ["acuracy"]\n[grid]\n"task.smoothing" = [0, 0.1]',
            r"no metric 'acuracy'. Did you mean 'accuracy'",
        ),
        (
            'baseline = "smoothing 0.3"\n[grid]\n"task.smoothing" = [0, 0.1]',
            r"no system 'smoothing 0.3' to be the baseline. Did you mean",
        ),
        (
            'recipe = ["embeded-lag"]\n[grid]\n"task.smoothing" = [0, 0.1]',
            r"no recipe 'embeded-lag'. Did you mean 'embedded-lag'",
        ),
        ('seeds = "4-2"\n[grid]\n"task.smoothing" = [0, 0.1]', r"'4-2' cannot be read"),
        ('[[system]]\nname = "a"\n[[system]]\nname = "A"', r"two systems are called 'a'"),
        (
            '[[system]]\nname = "a"\nseeds = 3\n[[system]]\nname = "b"',
            r"seeds of a \[\[system\]\] is a text, not 3",
        ),
        (
            '[[system]]\nname = "a"\nstart = "c"\n[[system]]\nname = "b"',
            r"'a' cannot start from 'c', which is not one of its systems",
        ),
        (
            '[[system]]\nname = "a"\nstart = "b"\n[[system]]\nname = "b"\nstart = "a"',
            r"which itself starts from another",
        ),
        (
            '[[system]]\nname = "a"\nset = 1',
            r"unknown key 'set' in a \[\[system\]\]. Did you mean 'settings'",
        ),
        ("system = [1]", r"a \[\[system\]\] is a table"),
        ('[[system]]\nname = "a"\nsettings = 3', r"a \[\[system\]\] is a table"),
        ("[grid.task]\nsmoothing = [0, 0.1]", r"values of \[grid\] 'task' must be a list"),
        ("[grid", r"not valid TOML"),
    ],
)
def test_wrong_plans_are_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_plan(str(tmp_path / "mine.toml"))


def test_unknown_plans_and_missing_extra_data_are_refused(tmp_path: Path) -> None:
    for name, message in (
        ("smothing", "Did you mean 'smoothing'"),
        ("mine.toml", "there is no plan mine.toml"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_plan(name)
    plan = load_plan("extra-data")
    with pytest.raises(ConfigError, match=r"--extra-data DATASET"):
        plan.cells(plan.changed(), tmp_path, tmp_path, tmp_path)
    smoothing = load_plan("smoothing")
    with pytest.raises(ConfigError, match=r"no place for --extra-data"):
        smoothing.cells(smoothing.changed(), tmp_path, tmp_path, tmp_path, ["more"])
    with pytest.raises(ConfigError, match=r"varies task.smoothing, so it cannot be set for all"):
        smoothing.changed(assignments=["task.smoothing=0.3"])
    with pytest.raises(ConfigError, match=r"seed is not set by --set"):
        smoothing.changed(assignments=["seed=3"])
    layers = load_plan("layers")
    with pytest.raises(ConfigError, match=r"spectral has 1 layer"):
        layers.cells(
            layers.changed(assignments=["features.backbone=spectral"]), tmp_path, tmp_path, tmp_path, layers=1
        )
    phase = load_plan("phase-augmentation")
    with pytest.raises(ConfigError, match="have the same settings"):
        type(phase)(**{**vars(phase), "systems": {"a": {}, "b": {}}, "baseline": "a"}).cells(
            phase.changed(), tmp_path, tmp_path, tmp_path
        )


def test_the_list_of_plans_needs_no_torch() -> None:
    code = (
        "import sys; from beatmeter.cli import cli; cli.main(['ablate', '--list'], standalone_mode=False); "
        "print('torch' in sys.modules)"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lines[-1] == "False"
    assert any(line.startswith("lora-rank: ") for line in lines)


# cells and tables


def test_the_table_is_what_compare_says_of_the_same_runs(plan: Path, config: RunConfig) -> None:
    result = ablate(plan, config)
    assert result.exit_code == 0, result.output
    out = plan.parent / "out"
    assert "dropout 0.1" in result.stdout
    assert (out / "figure-val.png").stat().st_size > 5000
    assert "dropout 0.5" in (out / "figure-val.svg").read_text()
    table = json.loads((out / "table-val.json").read_text())
    assert table["systems"]["dropout 0.1"]["seeds"] == [0, 1]
    systems = [
        f"dropout {value}={out}/dropout-{value}_seed-0,{out}/dropout-{value}_seed-1"
        for value in ("0.5", "0.1")
    ]
    metrics = [part for name in ("balanced_accuracy", "accuracy", "log_loss") for part in ("--metric", name)]
    compared = CliRunner().invoke(
        cli, ["compare", *systems, "--split", "val", *metrics, "--json"], catch_exceptions=False
    )
    said = json.loads(compared.stdout)
    assert {key: table[key] for key in said} == said
    with (out / "table-val.csv").open() as file:
        rows = {(row["system"], row["metric"]): row for row in csv.DictReader(file)}
    assert len(rows) == 6
    mean = said["metrics"]["dropout 0.1"]["accuracy"]["mean"]
    assert float(rows["dropout 0.1", "accuracy"]["low"]) == mean["low"]
    test = next(t for t in said["pairs"][0]["tests"] if t["metric"] == "log_loss")
    row = rows["dropout 0.1", "log_loss"]
    assert (float(row["difference"]), float(row["p_holm"]), row["verdict"]) == (
        test["difference"],
        test["adjusted"],
        test["verdict"],
    )
    assert rows["dropout 0.5", "log_loss"]["verdict"] == ""
    markdown = (out / "table-val.md").read_text().splitlines()
    cells = [line for line in markdown if line.startswith("| dropout 0.1 ")]
    assert len(cells) == 1
    value = said["metrics"]["dropout 0.1"]["balanced_accuracy"]["mean"]
    assert f"| {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}] |" in cells[0]
    assert max(map(len, (out / "table-val.txt").read_text().splitlines())) <= 100


def test_test_is_predicted_only_when_asked_and_then_without_training(plan: Path, config: RunConfig) -> None:
    assert ablate(plan, config).exit_code == 0
    folders = [RunFolder(path) for path in sorted((plan.parent / "out").iterdir()) if path.is_dir()]
    assert len(folders) == 4
    assert not any(folder.predictions("test").exists() for folder in folders)
    times = [folder.last.stat().st_mtime_ns for folder in folders]
    result = ablate(plan, config, "--split", "test")
    assert result.exit_code == 0, result.output
    assert "nothing should be chosen here" in " ".join(result.stdout.split())
    assert all(folder.predictions("test").exists() for folder in folders)
    assert [folder.last.stat().st_mtime_ns for folder in folders] == times
    assert (plan.parent / "out" / "table-test.md").exists()
    refused = ablate(plan, config, "--set", "training.epochs=3")
    assert isinstance(refused.exception, RunError), "finished cells have other settings"
    about = folders[0].about()
    folders[0].write_about(about | {"spec": about["spec"] | {"weights": "0" * 64}})
    refused = ablate(plan, config)
    assert isinstance(refused.exception, RunError), "finished cells have other features"
    assert "trained on other features than spectral gives now" in str(refused.exception)


DYING = """
import os, signal
from beatmeter.learning import history
add = history.History.add
def dying(self, line, *rest):
    if "hidden-8" not in self.folder.path.name and line["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return add(self, line, *rest)
history.History.add = dying
from beatmeter.cli import main
main()
"""


def test_a_killed_ablation_goes_on_and_ends_as_one_that_was_not(
    plan: Path, config: RunConfig, tmp_path: Path
) -> None:
    plan.write_text(
        plan.read_text()
        .replace('"head.dropout" = [0.1, 0.5]', '"head.hidden" = [8, 16, 24]')
        .replace("dropout 0.5", "hidden 8")
    )
    arguments = [
        str(plan),
        config.data.path,
        "--cache",
        config.features.cache,
        "--jobs",
        "1",
        "--set",
        "training.epochs=20",
    ]
    command = [sys.executable, "-c", DYING, "ablate", *arguments, "--out", str(tmp_path / "killed")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    first = [RunFolder(tmp_path / "killed" / f"hidden-8_seed-{seed}") for seed in (0, 1)]
    assert all(folder.finished for folder in first)
    assert not (tmp_path / "killed" / "table-val.json").exists()
    times = [folder.last.stat().st_mtime_ns for folder in first]
    runner = CliRunner()
    again = runner.invoke(
        cli, ["ablate", *arguments, "--out", str(tmp_path / "killed")], catch_exceptions=False
    )
    assert again.exit_code == 0, again.output
    assert [folder.last.stat().st_mtime_ns for folder in first] == times, "finished cells are kept"
    whole = runner.invoke(
        cli, ["ablate", *arguments, "--out", str(tmp_path / "whole")], catch_exceptions=False
    )
    assert whole.exit_code == 0
    tables = [json.loads((tmp_path / name / "table-val.json").read_text()) for name in ("killed", "whole")]
    for system, metrics in tables[0]["metrics"].items():
        for name, values in metrics.items():
            assert values["seeds"] == pytest.approx(tables[1]["metrics"][system][name]["seeds"], abs=1e-5), (
                system,
                name,
            )


def test_a_cell_that_fails_costs_itself(plan: Path, config: RunConfig) -> None:
    plan.write_text(
        plan.read_text()
        .replace('"head.dropout" = [0.1, 0.5]', '"training.head_lr" = [1e-3, 1e30]')
        .replace("dropout 0.5", "head_lr 0.001")
    )
    plan.write_text(plan.read_text() + '\n[[system]]\nname = "rough"\nsettings.head = { noise = 0.5 }\n')
    result = ablate(plan, config)
    assert result.exit_code == 1, result.output
    assert "head_lr-1e+30_seed-0: the loss" in result.stderr
    table = json.loads((plan.parent / "out" / "table-val.json").read_text())
    assert set(table["missing"]) == {"head_lr-1e+30_seed-0", "head_lr-1e+30_seed-1"}
    assert set(table["systems"]) == {"head_lr 0.001", "rough"}
    assert "Traceback" in (plan.parent / "out" / "head_lr-1e+30_seed-0" / FAILED).read_text()
    assert "Failed and left out" in result.stdout


def test_processes_give_what_one_process_gives(plan: Path, config: RunConfig) -> None:
    plan.write_text(
        plan.read_text()
        .replace('"head.dropout" = [0.1, 0.5]', '"head.hidden" = [8, 16]')
        .replace("dropout 0.5", "hidden 8")
    )
    result = ablate(plan, config, jobs=2)
    assert result.exit_code == 0, result.output
    assert "2 processes at a time" in result.stderr
    together = json.loads((plan.parent / "out" / "table-val.json").read_text())
    (plan.parent / "out").rename(plan.parent / "processes")
    assert ablate(plan, config).exit_code == 0
    alone = json.loads((plan.parent / "out" / "table-val.json").read_text())
    for system, metrics in alone["metrics"].items():
        assert metrics["log_loss"]["seeds"] == pytest.approx(
            together["metrics"][system]["log_loss"]["seeds"], abs=1e-5
        )


def test_a_process_that_dies_costs_one_cell(
    plan: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that dies took two cells with it: they are tried alone, and then one of them dies again."""

    def ordered(
        work: Callable[..., str], units: Sequence[tuple[Any, str]], jobs: int, depth: int
    ) -> Iterator[Any]:
        for unit, place in units:
            dies = any(cell.name == "hidden-8_seed-1" for cell in unit)
            yield Crash() if dies else work((unit, place))

    monkeypatch.setattr(execution, "ordered", ordered)
    plan.write_text(
        plan.read_text()
        .replace('"head.dropout" = [0.1, 0.5]', '"head.hidden" = [8, 16]')
        .replace("dropout 0.5", "hidden 8")
    )
    result = ablate(plan, config, jobs=2)
    assert result.exit_code == 1, result.output
    assert "its 2 runs are tried one by one" in result.stderr
    table = json.loads((plan.parent / "out" / "table-val.json").read_text())
    assert list(table["missing"]) == ["hidden-8_seed-1"]
    assert table["systems"]["hidden 8"]["seeds"] == [0]
    assert table["systems"]["hidden 16"]["seeds"] == [0, 1]


def test_frozen_cells_of_one_shape_train_together_and_others_alone(config: RunConfig, tmp_path: Path) -> None:
    sizes = {}
    for name in ("smoothing", "lora-rank", "layers"):
        plan = load_plan(name)
        cells = [
            c
            for some in plan.cells(
                plan.changed(), Path(config.data.path), tmp_path, tmp_path, layers=6
            ).values()
            for c in some
        ]
        sizes[name] = sorted(len(unit) for unit in units_of(cells, tmp_path / "none"))
    assert sizes == {"smoothing": [25], "lora-rank": [1] * 12, "layers": [5] * 6 + [10]}


def test_systems_have_seeds_of_their_own_and_start_where_others_ended(plan: Path, config: RunConfig) -> None:
    text = plan.read_text().partition("[grid]")[0].replace("dropout 0.5", "plain")
    further = 'name = "further"\nseeds = "1"\nstart = "plain"\nsettings.training.epochs = 1\n'
    plan.write_text(f'{text}[[system]]\n{further}[[system]]\nname = "plain"\n')
    result = ablate(plan, config)
    assert result.exit_code == 0, result.output
    out = plan.parent / "out"
    assert sorted(p.name for p in out.glob("*_seed-*")) == ["further_seed-1", "plain_seed-0", "plain_seed-1"]
    assert RunFolder(out / "further_seed-1").config().training.start == str(out / "plain_seed-1")
    assert "starting from epoch" in result.output
    assert json.loads((out / "table-val.json").read_text())["systems"]["further"]["seeds"] == [1]
    loaded = load_plan(str(plan))
    with pytest.raises(ConfigError, match=r"'further' starts from 'plain', which has no seed 1"):
        type(loaded)(**{**vars(loaded), "seeds": (0,)}).cells(loaded.changed(), plan, plan, out)


def test_a_split_too_small_for_any_answer_is_refused(plan: Path, config: RunConfig) -> None:
    loaded = load_plan(str(plan))
    systems = loaded.cells(
        loaded.changed(assignments=["limit=5"]),
        Path(config.data.path),
        Path(config.features.cache),
        plan.parent / "out",
    )
    with pytest.raises(
        DataError, match=r"the val split has 5 groups with labels; with 1 comparisons it takes 6"
    ):
        execute(systems, plan.parent / "out", CPU, report=lambda text: None)


def test_further_data_that_bring_nothing_are_refused_and_others_join_training(
    plan: Path, config: RunConfig, music: Path, tmp_path: Path
) -> None:
    text = plan.read_text().partition("[grid]")[0].replace("dropout 0.5", "without")
    plan.write_text(
        f'{text}[[system]]\nname = "without"\n[[system]]\nname = "with"\nsettings.data.extra = '
        f'["{{extra}}"]\n'
    )
    refused = ablate(plan, config, "--extra-data", config.data.path)
    assert isinstance(refused.exception, DataError)
    assert "no track of" in str(refused.exception)
    assert "duplicate" in str(refused.exception)
    synthesise(tmp_path / "more", 6, SynthPlan(seconds=5.0, seed=1))
    rows = [f"more-{i},audio/{i:06d}.flac,{meter},more-{i}" for i, meter in enumerate("345797")]
    (tmp_path / "more" / "further.csv").write_text("\n".join(["id,file,class,group", *rows]) + "\n")
    result = ablate(plan, config, "--extra-data", str(tmp_path / "more" / "further.csv"))
    assert result.exit_code == 0, result.output
    systems = json.loads((plan.parent / "out" / "table-val.json").read_text())["systems"]
    assert systems["with"]["train_tracks"] == systems["without"]["train_tracks"] + 6


def test_the_command_says_what_it_lacks() -> None:
    for arguments, message in (
        (["ablate"], "needs a PLAN and a DATASET"),
        (["ablate", "smoothing"], "needs a PLAN and a DATASET"),
        (["ablate", "smothing", "data"], "Did you mean 'smoothing'"),
        (["ablate", "extra-data", os.devnull], "--extra-data"),
    ):
        result = CliRunner().invoke(cli, arguments)
        assert isinstance(result.exception, BeatmeterError)
        assert message in str(result.exception)


def test_the_page_of_ablations_has_a_part_for_every_plan() -> None:
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("ablations_page", root / "tools" / "ablations.py")
    assert spec is not None
    assert spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    page = (root / "docs" / "ablations.md").read_text(encoding="utf-8")
    for name in pages.PLANS:
        part = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
        assert pages.renewed(page, name, part) == page, "renewing with the same table changes nothing"
        assert f"ablations/{name}.svg" in part, f"run `python tools/ablations.py {name}`"
        rows = [
            line.split(" | ")[0].removeprefix("| ") for line in part.splitlines() if line.startswith("| ")
        ][2:]
        assert set(load_plan(name).systems) <= set(rows), name
        assert all(
            re.search(r"\d\.\d{3} \[-?\d\.\d{3}, \d\.\d{3}\]", line)
            for line in part.splitlines()
            if line.startswith("| ") and line.split(" | ")[0][2:] in rows
        )
    with pytest.raises(ValueError, match="has no part for nothing"):
        pages.renewed(page, "nothing", "")
    assert [name for name in pages.PLANS if pages.streams(name)] == [
        "lora-rank",
        "frozen-or-lora",
        "phase-augmentation",
    ]

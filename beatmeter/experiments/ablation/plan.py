"""Plans: TOML files that say what is varied, from which recipe, with which seeds, and what the others are
compared with.

    title = "Label smoothing"
    question = "What does the target of a negative change?"
    recipe = ["embedded-lag"]
    seeds = "0-4"
    baseline = "smoothing 0.1"          # what the others are tested against; default: the first system
    metrics = ["balanced_accuracy"]     # the first is the headline

    [settings.training]                 # on top of the recipe, for all systems
    epochs = 20

    [grid]                              # one system for every combination of values ...
    "task.smoothing" = [0.0, 0.1]

    [[system]]                          # ... and systems by name
    name = "with extra data"
    seeds = "0"                         # its own, where a run is dear; default: those of the plan
    start = "smoothing 0.1"             # its head starts where that system's run of the same seed ended
    [system.settings.data]
    extra = ["{extra}"]                 # stands for the data sets of --extra-data

`each_layer = true` adds a system for every single layer of the backbone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beatmeter.errors import ConfigError, nearest
from beatmeter.evaluation.metrics import METRICS
from beatmeter.experiments.cells import Cell, nest, parse_seeds, short_names, shown_value
from beatmeter.runtime.artifacts import read_toml
from beatmeter.runtime.config import change, parse_assignment
from beatmeter.settings import RunConfig

FOLDER = Path(__file__).resolve().parents[2] / "plans"
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
EXTRA = "{extra}"
DEFAULT = ("balanced_accuracy", "accuracy", "map", "log_loss", "primary_ece")
KEYS: Mapping[str, type] = {
    "title": str,
    "question": str,
    "recipe": list,
    "seeds": str,
    "baseline": str,
    "metrics": list,
    "settings": dict,
    "grid": dict,
    "system": list,
    "each_layer": bool,
}
SYSTEM_KEYS = ("name", "seeds", "start", "settings")
OWN = ("seed", "data.path", "features.cache")  # what the command line says by options of their own

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """One ablation: `systems` maps names to nested settings on top of `base`; the first of `metrics` is the
    headline.

    `own_seeds` of some systems take the place of `seeds`; `starts` maps a system to the one whose runs its
    own start from.
    """

    name: str
    title: str
    question: str
    base: RunConfig
    systems: Mapping[str, Settings]
    seeds: tuple[int, ...]
    baseline: str
    metrics: tuple[str, ...] = DEFAULT
    each_layer: bool = False
    own_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    starts: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_extra(self) -> bool:
        """Whether a system asks for further data."""
        return EXTRA in repr(self.systems)

    @property
    def varied(self) -> frozenset[str]:
        """Dotted names of the settings in which systems differ."""
        layers = {"features.layers"} if self.each_layer else set()
        return frozenset(layers.union(*map(_leaves, self.systems.values())))

    def changed(self, recipes: Sequence[Settings] = (), assignments: Sequence[str] = ()) -> RunConfig:
        """The base with further recipes and `name=value` texts. Raises ConfigError where they set what the
        plan varies."""
        config = self.base
        for values in (*recipes, *(parse_assignment(text, config) for text in assignments)):
            clash = sorted({*_leaves(values)} & {*self.varied, *OWN})
            if clash and clash[0] in OWN:
                raise ConfigError(
                    f"{clash[0]} is not set by --set or a recipe here", "Use DATASET, --cache and --seeds."
                )
            if clash:
                raise ConfigError(
                    f"the plan {self.name} varies {clash[0]}, so it cannot be set for all",
                    "Change the plan: copy it to a file.",
                )
            config = change(config, values, f"plan {self.name}")
        return config

    def cells(
        self,
        base: RunConfig,
        data: Path,
        cache: Path,
        out: Path,
        extra: Sequence[str] = (),
        layers: int = 0,
        seeds: Sequence[int] = (),
    ) -> dict[str, list[Cell]]:
        """Every system with every seed, by the system's name. `base` is what `changed` gave, `out` the folder
        of the runs, `layers` the depth of the backbone for plans that try each.

        Raises ConfigError for further data that are missing or that nobody asked for, and for systems that
        come out the same.
        """
        if self.needs_extra and not extra:
            raise ConfigError(
                f"the plan {self.name} compares with and without further data",
                "Name them: --extra-data DATASET.",
            )
        if extra and not self.needs_extra:
            raise ConfigError(
                f"the plan {self.name} has no place for --extra-data",
                "Use --set data.extra=DATASET to give them to all systems.",
            )
        systems = dict(self.systems)
        if self.each_layer:
            if layers < 2:
                raise ConfigError(
                    f"{base.features.backbone} has {layers} layer: there is nothing to choose",
                    "Choose another features.backbone.",
                )
            systems |= {f"layer {k}": {"features": {"layers": str(k)}} for k in range(1, layers + 1)}
        found: dict[str, list[Cell]] = {}
        seen: dict[RunConfig, str] = {}
        for name, settings in systems.items():
            config = change(base, _filled(settings, extra), f"plan {self.name}, system {name!r}")
            config = change(config, {"data": {"path": str(data)}, "features": {"cache": str(cache)}})
            if config in seen:
                raise ConfigError(
                    f"plan {self.name}: the systems {seen[config]!r} and {name!r} have the same settings",
                    "Nothing is left to compare.",
                )
            seen[config] = name
            mine = seeds or self.own_seeds.get(name, self.seeds)
            found[name] = [Cell(shown_value(name), change(config, {"seed": seed})) for seed in mine]
        for name, first in self.starts.items():
            heads = {cell.config.seed: str(out / cell.name) for cell in found[first]}
            missing = [c.config.seed for c in found[name] if c.config.seed not in heads]
            if missing:
                raise ConfigError(
                    f"plan {self.name}: {name!r} starts from {first!r}, which has no seed {missing[0]}",
                    "Give both the same seeds.",
                )
            found[name] = [
                Cell(c.system, change(c.config, {"training": {"start": heads[c.config.seed]}}))
                for c in found[name]
            ]
        if self.baseline not in found:
            raise ConfigError(
                f"plan {self.name}: there is no system {self.baseline!r} to be the baseline",
                nearest(self.baseline, found),
            )
        return found


def shipped_plans() -> dict[str, Path]:
    """The plans that ship, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load_plan(name: str) -> Plan:
    """A shipped plan by name, or a TOML file by path. Raises ConfigError that names what is wrong in it."""
    known = shipped_plans()
    path = known.get(name, Path(name))
    if name not in known and path.suffix != ".toml":
        raise ConfigError(f"no plan {name!r}", nearest(name, known))
    if not path.is_file():
        raise ConfigError(f"there is no plan {path}", f"Plans that ship: {', '.join(known)}.")
    return _read(path, read_toml(path))


def _read(path: Path, values: Settings) -> Plan:
    where = f"plan {path.stem}"
    for key, value in values.items():
        if key not in KEYS:
            raise ConfigError(f"{where}: unknown key {key!r}", nearest(key, KEYS))
        if not isinstance(value, KEYS[key]):
            raise ConfigError(f"{where}: {key} = {value!r} must be a {KEYS[key].__name__}")
    base = RunConfig()
    for recipe in values.get("recipe", []):
        base = change(base, _recipe(str(recipe), path.parent, where), f"{where}, recipe {recipe}")
    base = change(base, values.get("settings", {}), where)
    named = values.get("system", [])
    systems = {**_grid(values.get("grid", {}), base, where), **_named(named, base, where)}
    own_seeds = {entry["name"]: parse_seeds(entry["seeds"]) for entry in named if "seeds" in entry}
    starts = {entry["name"]: entry["start"] for entry in named if "start" in entry}
    for name, first in starts.items():
        if first not in systems or first in starts:
            why = "itself starts from another" if first in starts else "is not one of its systems"
            raise ConfigError(
                f"{where}: {name!r} cannot start from {first!r}, which {why}",
                nearest(first, set(systems) - set(starts)),
            )
    each = bool(values.get("each_layer", False))
    if len(systems) + 2 * each < 2:
        raise ConfigError(
            f"{where} has {len(systems)} systems, two are needed to compare", "Add a [grid] or a [[system]]."
        )
    slugs = [shown_value(name).lower() for name in systems]
    twins = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    if twins:
        raise ConfigError(f"{where}: two systems are called {twins[0]!r}", "Give each a name of its own.")
    metrics = tuple(map(str, values.get("metrics", DEFAULT)))
    for metric in metrics:
        if metric not in METRICS:
            raise ConfigError(f"{where}: there is no metric {metric!r}", nearest(metric, METRICS))
    if not metrics:
        raise ConfigError(f"{where}: metrics is empty", "Name at least the one that counts.")
    baseline = values.get("baseline", next(iter(systems), "layer 1"))
    if baseline not in systems and not (each and baseline.startswith("layer ")):
        raise ConfigError(
            f"{where}: there is no system {baseline!r} to be the baseline", nearest(baseline, systems)
        )
    seeds = parse_seeds(values.get("seeds", "0-2"))
    return Plan(
        path.stem,
        values.get("title", path.stem),
        values.get("question", ""),
        base,
        systems,
        seeds,
        baseline,
        metrics,
        each,
        own_seeds,
        starts,
    )


def _recipe(name: str, folder: Path, where: str) -> Settings:
    """A shipped recipe by name, or a TOML file beside the plan."""
    known = {path.stem: path for path in RECIPES.glob("*.toml")}
    if name not in known and not name.endswith(".toml"):
        raise ConfigError(f"{where}: no recipe {name!r}", nearest(name, known))
    return read_toml(known.get(name, folder / name))


def _grid(axes: Settings, base: RunConfig, where: str) -> dict[str, Settings]:
    """A system for every combination of the axes' values."""
    for path, options in axes.items():
        if not isinstance(options, list) or not options:
            raise ConfigError(
                f"{where}: the values of [grid] {path!r} must be a list",
                'For instance: "task.smoothing" = [0.0, 0.1]',
            )
    found: dict[str, Settings] = {}
    for values in itertools.product(*axes.values()) if axes else ():
        settings: dict[str, Any] = {}
        for path, value in zip(axes, values, strict=True):
            settings = _merged(settings, nest(path, value))
        name = ", ".join(
            f"{short} {shown_value(value)}"
            for short, value in zip(short_names(list(axes)), values, strict=True)
        )
        if name in found:
            raise ConfigError(f"{where}: the grid gives {name!r} twice", "Give every value once.")
        change(base, settings, f"{where}, [grid]")
        found[name] = settings
    return found


def _named(entries: Sequence[Any], base: RunConfig, where: str) -> dict[str, Settings]:
    """The systems that have a name."""
    found: dict[str, Settings] = {}
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("settings", {}), Mapping):
            raise ConfigError(
                f"{where}: a [[system]] is a table with a name and a table of settings, not {entry!r}"
            )
        for key in entry:
            if key not in SYSTEM_KEYS:
                raise ConfigError(f"{where}: unknown key {key!r} in a [[system]]", nearest(key, SYSTEM_KEYS))
        for key in ("seeds", "start"):
            if not isinstance(entry.get(key, ""), str):
                raise ConfigError(
                    f"{where}: {key} of a [[system]] is a text, not {entry[key]!r}",
                    'For instance: seeds = "0-2"',
                )
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            raise ConfigError(f"{where}: a [[system]] has no name", 'It needs one: name = "with extra data"')
        if entry["name"] in found:
            raise ConfigError(
                f"{where}: two systems are called {entry['name']!r}", "Give each a name of its own."
            )
        found[entry["name"]] = entry.get("settings", {})
        change(base, found[entry["name"]], f"{where}, system {entry['name']!r}")
    return found


def _leaves(values: Settings, prefix: str = "") -> Iterator[str]:
    """Dotted names of nested settings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _merged(a: Settings, b: Settings) -> dict[str, Any]:
    return {
        **a,
        **{
            k: _merged(a[k], v) if isinstance(v, Mapping) and isinstance(a.get(k), Mapping) else v
            for k, v in b.items()
        },
    }


def _filled(value: Any, extra: Sequence[str]) -> Any:
    """The settings with the further data sets put in their place."""
    if isinstance(value, Mapping):
        return {k: _filled(v, extra) for k, v in value.items()}
    if isinstance(value, list):
        return [filled for v in value for filled in (extra if v == EXTRA else [v])]
    return value

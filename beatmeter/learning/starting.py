"""Where training begins that does not begin from the seed: the best epoch of another run.

The other run may read less. Where this one's lags are longer, where it reads straightened time beside plain
time, or where its task has more outputs, it takes over all that the other knows. (Lags of another length lie
on nearly the same grid, 2.8 % apart, so what a convolution over them knows stays true.) Straightened time
means what plain time means: its channels begin as twins of the plain ones, each with half of their weights.
Other new channels have weights of 0 before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from beatmeter.errors import RunError
from beatmeter.features.poolings import pooling_class
from beatmeter.features.poolings.rhythm import Rhythm
from beatmeter.learning.loop import fit_standardisation
from beatmeter.learning.model import Model
from beatmeter.learning.restoring import Restored, head_tensors, restore
from beatmeter.learning.standardiser import Standardiser
from beatmeter.schema import FeatureSpec, PoolingSpec, Track

_SIZES = ("longest", "n_lags")  # parameters of a pooling over lag that may grow
_HINT = "Use the same head and task settings, or no training.start."


def start(model: Model, run: Path, train: Sequence[Track]) -> str:
    """Give a model the best epoch of another run of the same backbone, classes and head; in words, what was
    done. Raises FingerprintError or RunError where the other is not of this one's kind."""
    saved, where = restore(run), f"the run {run}, where this one is to start"
    spec = replace(model.source.spec, store_dtype=saved.spec.store_dtype)  # roundings need not be the same
    names = _taken_over(spec, saved.spec)
    same = spec.agrees(saved.spec)
    if not same and names is None:
        spec.require_agreement(saved.spec, where)
    if same and saved.task.width == model.task.width:
        try:
            model.load(saved.tensors, saved.folder.best, partly=True)
        except RunError as error:
            raise _of_another_shape(run, error.what) from None
        return f"starting from epoch {saved.epoch} of {run}"
    names = names or {p.name: p.name for p in saved.spec.poolings}
    model.head.load_state_dict(_widened(model, saved, names, run))
    own = saved.standardiser
    known = Standardiser(
        {new: own.means[old] for old, new in names.items() if old in own.means},
        {new: own.scales[old] for old, new in names.items() if old in own.scales},
    )
    if own.means:
        fit_standardisation(model, train, model.source.step_size(model.task.config.training), known)
    if saved.adapter:
        model.source.load_adapter_state(saved.adapter)
    return f"starting from epoch {saved.epoch} of {run}, which knew less: its head is widened"


def _taken_over(spec: FeatureSpec, saved: FeatureSpec) -> dict[str, str] | None:
    """By the poolings of `saved`, those of `spec` that hold the same and perhaps more; None where one does
    not, or where they are of another backbone."""
    if not replace(spec, poolings=saved.poolings).agrees(saved):
        return None
    found = {old.name: new.name for old in saved.poolings for new in spec.poolings if _holds(new, old)}
    return found if len(found) == len(saved.poolings) == len(spec.poolings) else None


def _holds(new: PoolingSpec, old: PoolingSpec) -> bool:
    """Whether the first channels of `new` are those of `old`, at the same lags or more of them."""
    if new == old:
        return True
    if not (pooling_class(new).tempo_axis and pooling_class(old).tempo_axis) or new.layers != old.layers:
        return False
    grown = all(float(new.parameters[name]) >= float(old.parameters[name]) for name in _SIZES)
    kept = all(new.parameters.get(k) == value for k, value in old.parameters.items() if k not in _SIZES)
    return grown and kept and (new.kind == old.kind or old.kind == "lag")


def _widened(model: Model, saved: Restored, names: Mapping[str, str], run: Path) -> dict[str, Tensor]:
    """The tensors of the new head: those of the saved one, shared with straightened channels, with zeros for
    others and fresh values for outputs that it had not."""
    if model.task.output.names != saved.task.output.names:
        raise _of_another_shape(run, f"it knows the classes {', '.join(saved.task.output.names)}")
    found = head_tensors(saved.tensors)
    for old, new in names.items():
        for part in ("mix", "branches"):
            for key in [k for k in found if k.startswith(f"{part}.{old}.")]:
                found[f"{part}.{new}.{key.removeprefix(f'{part}.{old}.')}"] = found.pop(key)
    straightened = {
        f"branches.{new}.first.weight"
        for old, new in names.items()
        if model.source.spec[new].kind == Rhythm.kind != saved.spec[old].kind
    }
    result, wanted = {}, model.head.state_dict()
    odd = sorted(wanted.keys() ^ found.keys())
    if odd:
        raise _of_another_shape(run, f"the tensor {odd[0]} is {'missing' if odd[0] in wanted else 'unknown'}")
    for key, fresh in wanted.items():
        own = found[key].to(fresh)
        if own.shape != fresh.shape:
            inputs, outputs = key.endswith(".first.weight"), key.startswith("output.")
            if not (inputs or outputs) or any(a > b for a, b in zip(own.shape, fresh.shape, strict=True)):
                raise _of_another_shape(run, f"{key} is {tuple(own.shape)}, not {tuple(fresh.shape)}")
            wide = torch.zeros_like(fresh) if inputs else fresh.clone()
            wide[tuple(slice(n) for n in own.shape)] = own
            if key in straightened:
                n = own.shape[1]
                wide[:, n : 2 * n] = wide[:, :n] = own / 2
            own = wide
        result[key] = own
    return result


def _of_another_shape(run: Path, why: str) -> RunError:
    return RunError(f"the head of {run} is not of the shape of this one: {why}", _HINT)

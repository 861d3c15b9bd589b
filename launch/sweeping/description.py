"""The sweep file: what it may say, and every fault of it, before anything is started.

    name: batch_and_rate            # also the wandb group; the directory is outputs/sweeps/<name>
    sampler: grid                   # grid | random | optuna
    flags: {model_path: MODEL, data_path: data/MATH}     # of every cell; those of sft_dist.train
    axes:                           # what differs: lists; {low, high, log} unless it is a grid
      global_batch_size: [128, 256, 512]
      learning_rate: [1e-5, 2e-5]
    rules: {learning_rate: sqrt, reference_batch: 256, warmup_examples: 2560}
    sbatch: [--nodes=2, --time=04:00:00]

Not here: how a point of the axes becomes a run (`cells.py`).
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from sft_dist.errors import ConfigError

SAMPLERS = ("grid", "random", "optuna")
METRICS = ("eval/accuracy", "train/loss")


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Successive halving: at each rung only the best of the cells go on."""

    rungs: list[float]
    """Passes over the data after which cells are compared. Epochs, not steps: cells of different
    global batch have then seen the same examples."""
    keep: float = 0.5
    """Share of the cells that goes on at each rung, rounded up."""
    metric: str = "eval/accuracy"
    """eval/accuracy (higher is better) or train/loss (lower is better)."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Large-batch rules; both need --global_batch_size among the flags or axes."""

    learning_rate: str | None = None
    """linear or sqrt: --learning_rate is that of `reference_batch`, and is scaled from there."""
    reference_batch: int | None = None
    """Global batch whose learning rate is known."""
    warmup_examples: int | None = None
    """Warm-up in examples, so that it is the same share of the data at any batch."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sweep file."""

    name: str = ""
    output_dir: str = ""
    """Directory of the sweep. Unset: outputs/sweeps/<name>."""
    sampler: str = "grid"
    optuna_sampler: str = "TPESampler"
    """A class of `optuna.samplers`."""
    num_cells: int | None = None
    """Cells to draw (random, optuna)."""
    cells_per_call: int = 4
    """Cells that Optuna is asked for at a time: it learns from those that have finished."""
    seed: int = 0
    """Of the draws, not of training."""
    config: str | None = None
    """A YAML file of flags, under those of `flags`."""
    flags: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    halving: Halving | None = None
    sbatch: list[str] = field(default_factory=list)
    """Options of sbatch for every cell."""
    max_parallel: int | None = None
    """Cells of the array that run at the same time."""
    command: list[str] = field(default_factory=list)
    """What starts a cell with --local. Unset: launch/train_single_node.sh."""

    @property
    def directory(self) -> Path:
        """Where cells, logs and the table are."""
        return Path(self.output_dir or f"outputs/sweeps/{self.name}").resolve()


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        ConfigError: with all faults of its shape; flags are checked later, by `cells.py`.
    """
    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: expected a readable YAML file, found: {error}"]) from error
    if not isinstance(loaded, dict):
        raise ConfigError([f"{path}: expected `key: value` lines, found {type(loaded).__name__}"])
    faults: list[str] = []
    values = _known(Sweep, loaded, "", faults)
    for key, kind in (("rules", Rules), ("halving", Halving)):
        if isinstance(values.get(key), dict):
            known = _known(kind, values[key], f"{key}: ", faults)
            values[key] = kind(**{"rungs": [], **known} if kind is Halving else known)
        elif key in values:
            faults.append(f"{key}: expected `key: value` lines, found {values.pop(key)!r}")
    sweep = Sweep(**values)
    faults += _shape_faults(sweep) or [*_axis_faults(sweep), *_rule_faults(sweep)]
    if faults:
        raise ConfigError([f"{path}: {fault}" for fault in faults])
    return Sweep(**{**values, "flags": {**_config_file(sweep), **sweep.flags}})


def _known(kind: type, given: Mapping[str, Any], place: str, faults: list[str]) -> dict[str, Any]:
    names = [f.name for f in fields(kind)]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            faults.append(f"{place}{name}: there is no such key; {hint}")
    return {name: value for name, value in given.items() if name in names and value is not None}


def _config_file(sweep: Sweep) -> dict[str, Any]:
    if sweep.config is None:
        return {}
    try:
        loaded = yaml.safe_load(Path(sweep.config).read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"config: expected a readable YAML file, found: {error}"]) from error
    return dict(loaded)


def _shape_faults(sweep: Sweep) -> list[str]:
    """Values of the wrong kind; the other checks need them right."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "name": str, "output_dir": str, "sampler": str, "optuna_sampler": str, "seed": int,
        "num_cells": (int, type(None)), "cells_per_call": int, "config": (str, type(None)),
        "flags": dict, "axes": dict, "sbatch": list, "command": list,
        "max_parallel": (int, type(None)),
    }  # fmt: skip
    faults = []
    for name, kind in kinds.items():
        value = getattr(sweep, name)
        if not isinstance(value, kind):
            wanted = kind[0] if isinstance(kind, tuple) else kind
            faults.append(f"{name}: expected {wanted.__name__}, found {value!r}")
    if not faults and not sweep.name:
        faults.append("name: expected a name of the sweep, found none")
    if not faults and "/" in sweep.name:
        faults.append(f"name: expected a name without /, found {sweep.name!r}")
    return faults


def _axis_faults(sweep: Sweep) -> list[str]:
    faults = []
    if sweep.sampler not in SAMPLERS:
        faults.append(f"sampler: expected one of {', '.join(SAMPLERS)}, found {sweep.sampler!r}")
    if not sweep.axes:
        faults.append("axes: expected at least one flag with its values, found none")
    if sweep.sampler != "grid" and not (sweep.num_cells or 0) > 0:
        faults.append(f"num_cells: expected how many cells {sweep.sampler} draws, found none")
    for name, values in sweep.axes.items():
        if name in sweep.flags:
            faults.append(f"{name}: stands under flags and under axes; leave one")
        faults += [f"axes: {name}: {fault}" for fault in _one_axis_faults(sweep.sampler, values)]
    return faults


def _one_axis_faults(sampler: str, values: Any) -> list[str]:
    if isinstance(values, list):
        return [] if values else ["expected at least one value, found an empty list"]
    if not isinstance(values, dict):
        return [f"expected a list of values, found {values!r}"]
    if sampler == "grid":
        return ["a grid needs a list of values; low and high are for random and optuna"]
    if not {"low", "high"} <= set(values) <= {"low", "high", "log"}:
        return [f"expected low, high and perhaps log, found {sorted(values)}"]
    low, high = number(values["low"]), number(values["high"])
    if low is None or high is None or not low < high:
        return [f"expected two numbers low < high, found {values['low']!r}, {values['high']!r}"]
    if values.get("log") and low <= 0:
        return [f"expected low > 0 with log, found {low}"]
    return []


def _rule_faults(sweep: Sweep) -> list[str]:
    rules, faults = sweep.rules, []
    given = {**sweep.flags, **sweep.axes}
    if rules.learning_rate not in (None, "linear", "sqrt"):
        faults.append(f"rules: learning_rate: expected linear or sqrt, found {rules.learning_rate}")
    if rules.learning_rate and not isinstance(rules.reference_batch, int):
        faults.append("rules: reference_batch: expected the batch whose rate is known, found none")
    if rules.learning_rate and "learning_rate" not in given:
        faults.append("rules: learning_rate: expected learning_rate under flags or axes")
    if (rules.learning_rate or rules.warmup_examples) and "global_batch_size" not in given:
        faults.append("rules: expected global_batch_size under flags or axes: rules scale by it")
    if rules.warmup_examples and "warmup_steps" in given:
        faults.append("rules: warmup_examples: warmup_steps is given too; leave one")
    return faults + (_halving_faults(sweep.halving, given) if sweep.halving else [])


def _halving_faults(halving: Halving, given: Mapping[str, Any]) -> list[str]:
    faults = []
    rungs = halving.rungs
    if not isinstance(rungs, list) or not rungs or not all(number(r) for r in rungs):
        faults.append(f"halving: rungs: expected epochs such as [0.5, 1], found {rungs!r}")
    elif sorted(rungs) != rungs:
        faults.append(f"halving: rungs: expected ascending epochs, found {rungs}")
    if not isinstance(halving.keep, float | int) or not 0 < halving.keep < 1:
        faults.append(f"halving: keep: expected a share between 0 and 1, found {halving.keep!r}")
    if halving.metric not in METRICS:
        known = ", ".join(METRICS)
        faults.append(f"halving: metric: expected one of {known}, found {halving.metric!r}")
    elif halving.metric == "eval/accuracy" and given.get("eval_placement", "shared") != "shared":
        faults.append("halving: metric: eval/accuracy needs eval_placement shared; take train/loss")
    return faults


def number(value: Any) -> float | None:
    """A number of a YAML file, where 1e-5 is a string; None for anything else."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None

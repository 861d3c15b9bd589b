"""Points of the axes: all of them, some at random, or those that Optuna proposes."""

import importlib.util
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launch.sweeping.description import Sweep, number
from sft_dist.errors import ConfigError

Point = dict[str, Any]
"""A value for each axis, as the sweep file spells it."""


def grid(axes: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def draws(axes: Mapping[str, Any], seed: int) -> Iterator[Point]:
    """Random points without end, always the same: more cells keep the first ones."""
    source = random.Random(seed)
    while True:
        yield {name: _draw(source, values) for name, values in axes.items()}


def _draw(source: random.Random, values: Any) -> Any:
    if isinstance(values, list):
        return source.choice(values)
    low, high, whole = bounds(values)
    if values.get("log"):
        drawn = math.exp(source.uniform(math.log(low), math.log(high)))
    else:
        drawn = source.uniform(low, high)
    # Three digits: a rate that people can read and write down again.
    return min(max(round(drawn), int(low)), int(high)) if whole else float(f"{drawn:.2e}")


def bounds(values: Mapping[str, Any]) -> tuple[float, float, bool]:
    """(low, high, whether whole numbers are meant) of a range."""
    low, high = number(values["low"]), number(values["high"])
    assert low is not None
    assert high is not None
    return low, high, isinstance(values["low"], int) and isinstance(values["high"], int)


def propose(sweep: Sweep, tried: Sequence[tuple[Point, float | None]], count: int) -> list[Point]:
    """Points that Optuna proposes, knowing those tried.

    Args:
        sweep: its axes, seed and `optuna_sampler`.
        tried: points with their score (higher is better); None while it is not known.
        count: how many are wanted.

    Raises:
        ConfigError: when Optuna is not installed or has no such sampler.
    """
    optuna, sampler_class = _optuna(sweep.optuna_sampler)
    # Another seed at each call: the same one would draw the same first proposals again.
    sampler = sampler_class(seed=sweep.seed + len(tried))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space = {name: _distribution(optuna, values) for name, values in sweep.axes.items()}
    for point, score in tried:
        if score is None:  # so that the cells that still run are not proposed again
            study.enqueue_trial(_parameters(sweep, point))
            study.ask(space)
        else:
            parameters = _parameters(sweep, point)
            study.add_trial(
                optuna.trial.create_trial(params=parameters, distributions=space, value=score)
            )
    return [_point(sweep, study.ask(space).params) for _ in range(count)]


def _optuna(name: str) -> tuple[Any, Any]:
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            ["sampler: optuna is not installed; `pip install optuna`, or take grid or random"]
        )
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = getattr(optuna.samplers, name, None)
    if found is None:
        known = ", ".join(n for n in optuna.samplers.__all__ if n.endswith("Sampler"))
        raise ConfigError([f"optuna_sampler: expected one of {known}; found {name}"])
    return optuna, found


def _distribution(optuna: Any, values: Any) -> Any:
    if isinstance(values, list):
        return optuna.distributions.CategoricalDistribution([str(value) for value in values])
    low, high, whole = bounds(values)
    log = bool(values.get("log"))
    if whole:
        return optuna.distributions.IntDistribution(int(low), int(high), log=log)
    return optuna.distributions.FloatDistribution(low, high, log=log)


def _parameters(sweep: Sweep, point: Point) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(sweep.axes[name], list) else value
        for name, value in point.items()
    }


def _point(sweep: Sweep, parameters: Mapping[str, Any]) -> Point:
    point = {}
    for name, values in sweep.axes.items():
        value = parameters[name]
        if isinstance(values, list):
            value = next(v for v in values if str(v) == value)
        elif isinstance(value, float):
            low, high, _ = bounds(values)
            value = min(max(float(f"{value:.2e}"), low), high)
        point[name] = value
    return point

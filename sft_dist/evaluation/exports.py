"""Weights exported for an evaluation alone: no checkpoint, gone when nobody reads them any more."""

import shutil
from itertools import chain, count
from pathlib import Path

EXPORTS = ".exports"
"""Their place in the run directory: weights of steps that are evaluated and not saved."""


def new_export_path(run_dir: Path, step: int, *, attempt: int) -> Path:
    """Where to export the weights of `step`: never where an earlier attempt, or this one, did.

    An evaluation may be reading what stands there.
    """
    path = run_dir / EXPORTS / f"step-{step:06d}-attempt-{attempt}"
    again = (path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(p for p in chain([path], again) if not p.exists())


def list_exports(run_dir: Path) -> dict[int, Path]:
    """The exports that are there, by step."""
    return {int(path.name.split("-")[1]): path for path in run_dir.glob(f"{EXPORTS}/step-*")}


def remove_export(model_dir: str) -> None:
    """Remove `model_dir` if it is such an export; base models and checkpoints stay."""
    if Path(model_dir).parent.name == EXPORTS:
        shutil.rmtree(model_dir, ignore_errors=True)

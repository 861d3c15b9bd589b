"""Weights exported for an evaluation alone: no checkpoint, gone when nobody reads them any more."""

import shutil
from pathlib import Path

EXPORTS = ".exports"
"""Their place in the run directory: weights of steps that are evaluated and not saved."""


def remove_export(model_dir: str) -> None:
    """Remove `model_dir` if it is such an export; base models and checkpoints stay."""
    if Path(model_dir).parent.name == EXPORTS:
        shutil.rmtree(model_dir, ignore_errors=True)

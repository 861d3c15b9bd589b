"""Names: of checkpoints, of what is in one, and of what is not yet, or no longer, a checkpoint."""

import re
from pathlib import Path

NAME = re.compile(r"checkpoint-(\d+)")
WEIGHTS_NAME = re.compile(r"weights-(\d+)")
MANIFEST = "manifest.json"
TRAINING_STATE = "training_state.pt"
ENGINE = "engine"
SUPERSEDED = ".superseded"


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of `step` completed updates stands."""
    return run_dir / f"checkpoint-{step}"


def weights_path(run_dir: Path, step: int) -> Path:
    """Where the model of a removed checkpoint stands: it cannot be resumed, so its name says so."""
    return run_dir / f"weights-{step}"


def checkpoint_step(path: Path) -> int:
    """N of `checkpoint-N` or `weights-N`."""
    match = NAME.fullmatch(path.name) or WEIGHTS_NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def partial_path(target: Path) -> Path:
    """Where the directory `target` is written before it gets its name."""
    return target.with_name(f".tmp-{target.name}")


def doomed_path(target: Path) -> Path:
    """Where the directory `target` goes before its files are removed."""
    return target.with_name(f".removing-{target.name}")


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    named = [p for p in run_dir.glob("checkpoint-*") if NAME.fullmatch(p.name)]
    return sorted(named, key=checkpoint_step)


def list_weights(run_dir: Path) -> list[Path]:
    """The models that are left of removed checkpoints, oldest first."""
    named = [p for p in run_dir.glob("weights-*") if WEIGHTS_NAME.fullmatch(p.name)]
    return sorted(named, key=checkpoint_step)

"""What is removed, and what is spared. Nothing called `checkpoint-N` is ever half there."""

import logging
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sft_dist.checkpoint.layout import (
    ENGINE,
    MANIFEST,
    TRAINING_STATE,
    checkpoint_step,
    doomed_path,
    list_checkpoints,
    list_weights,
    partial_path,
    weights_path,
)
from sft_dist.durable import TEMPORARY, sync_directory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay, besides the one just published."""

    keep_last: int = 0
    """The newest so many; 0 keeps all."""
    keep: Collection[int] = frozenset()
    """Steps to keep as they are: the best one, those that an evaluation reads in place."""
    keep_weights: Collection[int] = frozenset()
    """Steps whose weights stay when the rest goes: they may yet be found to be the best."""


def what_to_keep(
    run_dir: Path,
    accuracies: Mapping[int, float],
    *,
    keep_last: int,
    keep_best: bool,
    reading: Collection[int],
    reading_apart: Collection[int],
) -> Retention:
    """What stays when the next checkpoint is published.

    Args:
        run_dir: the run.
        accuracies: by step, those that are known.
        keep_last: the newest so many; 0 keeps all.
        keep_best: whether the most accurate step stays, the earlier of equals.
        reading: steps that open evaluations read.
        reading_apart: of these and of earlier ones, those whose weights have a second name.
    """
    keep = set(reading) - set(reading_apart)
    if keep_best:
        there = {checkpoint_step(p) for p in (*list_checkpoints(run_dir), *list_weights(run_dir))}
        known = there & set(accuracies)
        if known:
            keep.add(max(known, key=lambda step: (accuracies[step], -step)))
    return Retention(keep_last, keep, set(reading) if keep_best else set())


def remove_old_checkpoints(run_dir: Path, retention: Retention) -> None:
    """Remove what `retention` does not keep; `weights-N` is what may be left of `checkpoint-N`."""
    keep_last = retention.keep_last
    for path in list_checkpoints(run_dir)[:-keep_last] if keep_last else []:
        if checkpoint_step(path) not in retention.keep:
            _remove(path, keep_weights=checkpoint_step(path) in retention.keep_weights)
    for path in list_weights(run_dir):
        if checkpoint_step(path) not in {*retention.keep, *retention.keep_weights}:
            _remove(path)


def _remove(path: Path, *, keep_weights: bool = False) -> None:
    doomed = doomed_path(path)
    shutil.rmtree(doomed, ignore_errors=True)  # what an earlier attempt could not remove
    rest = weights_path(path.parent, checkpoint_step(path))
    if keep_weights and not rest.exists():  # first: a kill must not lose them
        share_weights(path, rest)
    os.rename(path, doomed)
    sync_directory(path.parent)  # else, after a power cut, the name could be back without files
    shutil.rmtree(doomed)


def remove_leftovers(run_dir: Path) -> None:
    """What a killed run left under temporary names."""
    for pattern in (".tmp-checkpoint-*", ".tmp-weights-*", ".removing-*"):
        for path in run_dir.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for path in run_dir.glob(TEMPORARY):
        if path.is_file():
            path.unlink(missing_ok=True)


def share_weights(checkpoint: Path, directory: Path) -> bool:
    """Give the model in a checkpoint a second name, without what only a resume needs.

    Hard links take no space, and the files stay until both names are gone.

    Args:
        checkpoint: a whole one.
        directory: does not exist.

    Returns:
        False where the file system has no hard links: there is no `directory` then.
    """
    partial = partial_path(directory)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for path in checkpoint.iterdir():
            if path.name not in (ENGINE, MANIFEST, TRAINING_STATE):
                os.link(path, partial / path.name)
        os.rename(partial, directory)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        logger.debug("no second name for %s: %s", checkpoint, error)
        return False
    return True

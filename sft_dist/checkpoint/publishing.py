"""From files under a temporary name to a checkpoint: durable, listed, renamed, in this order."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sft_dist.checkpoint.agreement import SavingRanks
from sft_dist.checkpoint.layout import (
    ENGINE,
    MANIFEST,
    SUPERSEDED,
    TRAINING_STATE,
    checkpoint_path,
    partial_path,
)
from sft_dist.checkpoint.manifest import (
    WEIGHTS,
    damage,
    file_entry,
    files_in,
    manifest_text,
    read_listing,
)
from sft_dist.checkpoint.retention import Retention, remove_old_checkpoints
from sft_dist.durable import exchange, sync_directory, sync_file, write_atomically
from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)

Write = Callable[[Path], None]


@dataclass(frozen=True)
class Contents:
    """What goes into a checkpoint: who writes it, each called with the directory to write in."""

    state: TrainState
    """Where the run stands; `state.step` is N."""
    write_model: Write
    """Weights, configuration and tokenizer; called on rank 0."""
    write_engine: Write
    """This rank's optimizer state. Collective: it may use the saving ranks' group."""


def write_checkpoint(
    run_dir: Path, contents: Contents, *, ranks: SavingRanks, retention: Retention
) -> Path:
    """Publish `checkpoint-N` and remove old ones. Collective, on the saving ranks' own group.

    Args:
        run_dir: on a file system that all ranks see.
        contents: what to write.
        ranks: all that save.
        retention: what stays.

    Raises:
        CheckpointError: on every rank; older checkpoints are untouched, nothing partial stays.
    """
    target = checkpoint_path(run_dir, contents.state.step)
    partial = partial_path(target)
    try:
        ranks.together(target, lambda: _begin(partial) if ranks.is_zero else None)
        ranks.together(target, lambda: contents.write_engine(partial / ENGINE))
        parts = ranks.together(target, lambda: _finish_files(partial, contents, ranks))
        listed = {name: entry for part in parts for name, entry in part.items()}
        ranks.together(target, lambda: _name(partial, target, listed) if ranks.is_zero else None)
    except BaseException:
        if ranks.is_zero:  # every rank has ended its part: a full disk must not stay full
            shutil.rmtree(partial, ignore_errors=True)
        raise
    if ranks.is_zero:
        _retain(run_dir, retention, contents.state.step)
    return target


def write_weights(directory: Path, write_model: Write, *, ranks: SavingRanks) -> Path:
    """A model directory that is no checkpoint: durable, then renamed. On rank 0 alone.

    Raises:
        CheckpointError: when it cannot be written; nothing partial stays.
    """
    partial = partial_path(directory)

    def write() -> None:
        _begin(partial)
        write_model(partial)
        for path in files_in(partial):
            sync_file(path)
        sync_directory(partial)
        os.rename(partial, directory)
        sync_directory(directory.parent)

    try:
        ranks.alone(directory, write)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return directory


def _begin(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _finish_files(partial: Path, contents: Contents, ranks: SavingRanks) -> dict[str, Any]:
    """Make this rank's files durable and list them; rank 0 writes the model meanwhile."""
    if ranks.is_zero:
        contents.write_model(partial)
        torch.save(contents.state.as_dict(), partial / TRAINING_STATE)
    listed = {}
    for path in files_in(partial):
        name = str(path.relative_to(partial))
        if _writer_of(name, ranks.size) == ranks.rank:
            sync_file(path)
            listed[name] = file_entry(path)
    return listed


def _writer_of(name: str, size: int) -> int:
    """The rank that wrote a file: DCP's shards are `engine/__<rank>_<n>.distcp`; else rank 0."""
    number = name.removeprefix(f"{ENGINE}/__").partition("_")[0]
    return int(number) if number.isdigit() and int(number) < size else 0


def _name(partial: Path, target: Path, listed: dict[str, Any]) -> None:
    step = int(target.name.rpartition("-")[2])
    write_atomically(partial / MANIFEST, manifest_text(step, listed))
    if _is_same(target, listed):
        shutil.rmtree(partial)
        return
    sync_directory(partial / ENGINE)
    sync_directory(partial)
    if target.exists():
        _supersede(partial, target)
    else:
        os.rename(partial, target)
    sync_directory(target.parent)


def _supersede(partial: Path, target: Path) -> None:
    """A step reached a second time: the older checkpoint is set aside, never overwritten."""
    aside = target.parent / SUPERSEDED
    aside.mkdir(exist_ok=True)
    number = sum(1 for p in aside.iterdir() if p.name.startswith(target.name + "."))
    place = aside / f"{target.name}.{number}"
    logger.warning("%s is there already, with other content; it moves to %s", target, aside)
    os.rename(partial, place)
    if not exchange(place, target):  # in one instant: a kill must not find neither there
        os.rename(place, partial)
        os.rename(target, place)
        os.rename(partial, target)
    sync_directory(aside)


def _is_same(target: Path, listed: dict[str, Any]) -> bool:
    """Whether `target` is whole and holds the very weights and optimizer state of `listed`."""
    if not target.exists() or damage(target):
        return False
    return _state_checksums(read_listing(target)) == _state_checksums(listed)


def _state_checksums(listed: dict[str, Any]) -> dict[str, str]:
    state = (*WEIGHTS, ".distcp")
    return {name: entry["sha256"] for name, entry in listed.items() if name.endswith(state)}


def _retain(run_dir: Path, retention: Retention, step: int) -> None:
    """The checkpoint is there: an old one that cannot be removed is no reason to fail."""
    try:
        remove_old_checkpoints(run_dir, replace(retention, keep={step, *retention.keep}))
    except OSError as error:
        logger.warning("an old checkpoint could not be removed: %s", error)

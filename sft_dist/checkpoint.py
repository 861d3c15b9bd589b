"""Checkpoints: written under a temporary name, made durable, listed in a manifest, renamed.

A directory named `checkpoint-N` is whole. It is an ordinary Hugging Face model directory with
`training_state.pt`, the optimizer state in `engine/`, and `manifest.json` (sizes and SHA-256).
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from sft_dist.errors import CheckpointError
from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)

NAME = re.compile(r"checkpoint-(\d+)")
MANIFEST = "manifest.json"
TRAINING_STATE = "training_state.pt"


def checkpoint_step(path: Path) -> int:
    """N of `checkpoint-N`."""
    match = NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


class Saves(Protocol):
    """What of an engine a checkpoint needs; both are collective."""

    def export_weights(self, directory: Path) -> None: ...  # noqa: D102
    def save_state(self, directory: Path) -> None: ...  # noqa: D102


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of `step` completed updates stands."""
    return run_dir / f"checkpoint-{step}"


def save_checkpoint(
    run_dir: Path,
    state: TrainState,
    *,
    engine: Saves,
    tokenizer: Any,
    keep_last: int,
    keep: Collection[int] = (),
) -> Path:
    """Publish `checkpoint-N` and remove old ones. Collective.

    Args:
        run_dir: on a file system that all ranks see.
        state: where the run stands; `state.step` is N.
        engine: holds weights and optimizer state.
        tokenizer: saved beside the weights.
        keep_last: newest checkpoints to keep; 0 keeps all.
        keep: steps never to remove (the best one, those an evaluation still reads).

    Raises:
        CheckpointError: on every rank; older checkpoints are untouched.
    """
    target = checkpoint_path(run_dir, state.step)
    partial = run_dir / f".tmp-{target.name}"
    rank_zero = not dist.is_initialized() or dist.get_rank() == 0
    if rank_zero:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    _barrier()
    # Agreed after each part: a rank that failed must not leave the others in the next collective.
    _raise_together(_attempt(lambda: engine.export_weights(partial)), target)
    _raise_together(_attempt(lambda: engine.save_state(partial / "engine")), target)
    error = _attempt(lambda: _publish(partial, target, state, tokenizer)) if rank_zero else None
    _raise_together(error, target)
    if rank_zero:
        remove_old_checkpoints(run_dir, keep_last=keep_last, keep={state.step, *keep})
    return target


def _publish(partial: Path, target: Path, state: TrainState, tokenizer: Any) -> None:
    tokenizer.save_pretrained(partial)
    torch.save(state.as_dict(), partial / TRAINING_STATE)
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    listed = {
        str(p.relative_to(partial)): {"size": p.stat().st_size, "sha256": file_sha256(p)}
        for p in files
    }
    manifest = {"format": 1, "step": state.step, "files": listed}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
    if _is_same(partial, target):
        shutil.rmtree(partial)
        return
    for path in (*files, partial / MANIFEST, partial / "engine", partial):
        _fsync(path)
    _make_room(partial, target)
    _fsync(target.parent)


def _make_room(partial: Path, target: Path) -> None:
    """A step reached a second time: the older checkpoint is set aside, never overwritten."""
    if target.exists():
        aside = target.parent / ".superseded"
        aside.mkdir(exist_ok=True)
        number = sum(1 for p in aside.iterdir() if p.name.startswith(target.name + "."))
        logger.warning("%s is there already, with other content; it moves to %s", target, aside)
        os.rename(target, aside / f"{target.name}.{number}")
    os.rename(partial, target)


def _is_same(partial: Path, target: Path) -> bool:
    """Whether `target` is whole and holds the very weights and optimizer state of `partial`."""
    if not target.exists() or damage(target):
        return False
    mine, theirs = _state_checksums(partial), _state_checksums(target)
    return mine == theirs


def _state_checksums(checkpoint: Path) -> dict[str, str]:
    listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
    weights = (".safetensors", ".bin", ".distcp")
    return {name: entry["sha256"] for name, entry in listed.items() if name.endswith(weights)}


def damage(checkpoint: Path) -> list[str]:
    """What is wrong with a checkpoint; empty when every file is there with size and checksum."""
    try:
        listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
        expected = {name: (entry["size"], entry["sha256"]) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{MANIFEST} is missing or unreadable ({error!r})"]
    found = [_file_damage(checkpoint, name, *listing) for name, listing in expected.items()]
    return [fault for fault in found if fault]


def _file_damage(checkpoint: Path, name: str, size: int, sha256: str) -> str | None:
    path = checkpoint / name
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != size:
        return f"{name} has {path.stat().st_size} bytes, expected {size}"
    if file_sha256(path) != sha256:
        return f"{name} has another checksum than when it was written"
    return None


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    named = [p for p in run_dir.glob("checkpoint-*") if NAME.fullmatch(p.name)]
    return sorted(named, key=checkpoint_step)


def find_checkpoint(run_dir: Path, resume: str) -> Path | None:
    """The checkpoint to continue from; damaged ones are named and passed over.

    Args:
        run_dir: the run to look in.
        resume: `latest`, a run directory, or a checkpoint, which must then be whole.

    Returns:
        None when `latest` finds no checkpoint at all: a fresh start.

    Raises:
        CheckpointError: when the checkpoint named, or every one of the run, is damaged.
    """
    path = Path(resume)
    named = resume != "latest" and NAME.fullmatch(path.name) is not None
    candidates = [path] if named else list_checkpoints(run_dir if resume == "latest" else path)
    rejected = []
    for candidate in reversed(candidates):
        faults = damage(candidate)
        if not faults:
            return candidate
        rejected.append(f"{candidate}: {'; '.join(faults[:3])}")
        logger.warning("not resuming from %s", rejected[-1])
    if rejected or resume != "latest":
        raise CheckpointError(
            "expected a whole checkpoint to resume from, found none: "
            + ("\n  ".join(rejected) or f"{path} holds no checkpoint-N")
        )
    return None


def read_training_state(checkpoint: Path) -> TrainState:
    """The state stored in a checkpoint."""
    values = torch.load(checkpoint / TRAINING_STATE, weights_only=True, map_location="cpu")
    return TrainState.from_dict(values)


def remove_old_checkpoints(run_dir: Path, *, keep_last: int, keep: Collection[int]) -> None:
    """Remove all but the newest `keep_last` and those of the steps in `keep`."""
    checkpoints = list_checkpoints(run_dir)
    for path in checkpoints[:-keep_last] if keep_last else []:
        if checkpoint_step(path) not in keep:
            # Renamed first: a directory called checkpoint-N is never half there.
            doomed = path.parent / f".removing-{path.name}"
            os.rename(path, doomed)
            shutil.rmtree(doomed)


def remove_leftovers(run_dir: Path) -> None:
    """What a killed run left under temporary names."""
    for pattern in (".tmp-checkpoint-*", ".removing-checkpoint-*"):
        for path in run_dir.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _attempt(work: Any) -> Exception | None:
    try:
        work()
    except Exception as error:  # told to all ranks below, then raised
        logger.exception("saving failed")
        return error
    return None


def _raise_together(error: Exception | None, target: Path) -> None:
    """Raise on all ranks when any has failed: otherwise the others would wait for it."""
    found: list[str | None] = [repr(error) if error else None]
    if dist.is_initialized():
        mine = found[0]
        found = [None] * dist.get_world_size()
        dist.all_gather_object(found, mine)
    failed = [f"rank {rank}: {text}" for rank, text in enumerate(found) if text]
    if failed:
        raise CheckpointError(
            f"could not write {target}: {'; '.join(failed)}. Older checkpoints are whole; free "
            "space or fix permissions, then --resume_from_checkpoint latest"
        )


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()

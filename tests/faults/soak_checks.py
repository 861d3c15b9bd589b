"""What a killed run must have left, and what a run that ended must equal."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader

from sft_dist.checkpoint import checkpoint_step, damage, list_checkpoints
from sft_dist.tracking.record import last_by, read_rows

ON_TRAINING_THREAD = re.compile(
    r"(step \d+|end): (fsync|write|half write) \.tmp-(checkpoint|weights)"
)
LATE_SHARE = 0.8
ENOUGH_FOR_ALL_KINDS = 50
OF_THE_ATTEMPT = {"attempt", "wandb_run_id"}
"""In `training_state.pt`: the first counts the starts, the second is drawn at the first of them."""


def newest(run_dir):
    """N of the newest checkpoint; 0 without one."""
    found = list_checkpoints(run_dir)
    return checkpoint_step(found[-1]) if found else 0


def damaged(run_dir):
    """What is called a checkpoint and is not whole, with its faults."""
    faults = {path.name: damage(path) for path in list_checkpoints(run_dir)}
    return {name: fault for name, fault in faults.items() if fault}


def wandb_ids(run_dir):
    """The wandb run as the run directory and each whole checkpoint name it."""
    note = run_dir / "attempt.json"
    found = {json.loads(note.read_text())["wandb_run_id"]} if note.exists() else set()
    for path in list_checkpoints(run_dir):
        if not damage(path):
            found.add(training_state(path)["wandb_run_id"])
    return found


def faults_after_kill(run_dir, before):
    """Why what a kill has left is less than it must be; `before` is `newest` before the attempt."""
    faults = [f"{name} is damaged: {fault}" for name, fault in damaged(run_dir).items()]
    if newest(run_dir) < before:
        faults.append(f"the newest checkpoint was {before} and is {newest(run_dir)}")
    if len(wandb_ids(run_dir)) > 1:
        faults.append(f"the run has several wandb ids: {sorted(wandb_ids(run_dir))}")
    return faults


def faults_of_resume(run_dir, rows_before, newest_before):
    """Whether the first step recorded since is the one after the newest checkpoint."""
    steps = [row["step"] for row in read_rows(run_dir)[rows_before:] if "step" in row]
    if steps and steps[0] != newest_before + 1:
        return [f"resumed at step {steps[0]}, the newest checkpoint was {newest_before}"]
    return []


def differences(run_dir, reference):
    """How the end of a run differs from that of the uninterrupted one; empty when it does not."""
    found = _state(run_dir) + _checkpoints(run_dir, reference)
    mine, theirs = read_rows(run_dir), read_rows(reference)
    found += _rows("step", _steps(mine), _steps(theirs))
    found += _rows("eval/step", last_by(mine, "eval/step"), last_by(theirs, "eval/step"))
    return found + _repeated(mine) + _leftovers(run_dir)


def _repeated(rows):
    """An evaluation is recorded once, however often the run was killed between row and note."""
    steps = Counter(row["eval/step"] for row in rows if "eval/step" in row)
    twice = [step for step, number in steps.items() if number > 1]
    return [f"eval/step: recorded more than once: {twice}"] if twice else []


def _state(run_dir):
    status = json.loads((run_dir / "status.json").read_text())
    told = [status["state"], status.get("unscored")]
    return [] if told == ["finished", []] else [f"status.json: {status}"]


def _checkpoints(run_dir, reference):
    """The last two are there in both; of all that are there in both, every tensor is equal."""
    found = []
    mine, theirs = ({p.name: p for p in list_checkpoints(d)} for d in (run_dir, reference))
    last = [path.name for path in list_checkpoints(reference)[-2:]]
    found += [f"{name} is missing" for name in last if name not in mine]
    for name in sorted(set(mine) & set(theirs)):
        found += [f"{name}: {text}" for text in _contents(mine[name], theirs[name])]
    return found


def _contents(mine, theirs):
    if fault := damage(mine):
        return [f"damaged: {fault}"]
    found = [
        *_tensors(
            "model.safetensors", *(load_file(d / "model.safetensors") for d in (mine, theirs))
        ),
        *_tensors("engine", *(optimizer_tensors(d / "engine") for d in (mine, theirs))),
    ]
    states = [training_state(path) for path in (mine, theirs)]
    for name in sorted({*states[0], *states[1]} - OF_THE_ATTEMPT):
        values = [state.get(name) for state in states]
        if values[0] != values[1]:
            found.append(f"training_state.pt: {name} is {values[0]}, not {values[1]}")
    return found


def training_state(checkpoint: Path):
    """All of it, also what the product would pass over."""
    return torch.load(checkpoint / "training_state.pt", weights_only=True)


def optimizer_tensors(directory):
    """Everything in a distributed checkpoint, whole, by name."""
    described = FileSystemReader(directory).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in described.items()
    }
    dcp.load(tensors, checkpoint_id=directory, no_dist=True)
    return tensors


def _tensors(where, mine, theirs):
    if mine.keys() != theirs.keys():
        return [f"{where}: other tensors: {sorted(mine.keys() ^ theirs.keys())}"]
    differing = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    if not differing:
        return []
    return [f"{where}: {len(differing)} of {len(mine)} tensors differ, first {differing[0]}"]


def _steps(rows):
    """What of a step's last row is a result; `perf/*` is measured."""
    kept = ("step", "train/")
    return {
        step: {name: value for name, value in row.items() if name.startswith(kept)}
        for step, row in last_by(rows, "step").items()
    }


def _rows(axis, mine, theirs):
    if list(mine) != list(theirs):
        return [f"{axis}: recorded are {list(mine)}, not {list(theirs)}"]
    found = []
    for step, row in theirs.items():
        for name in sorted({*row, *mine[step]} - {"time", "attempt"}):
            values = mine[step].get(name), row.get(name)
            if values[0] != values[1] and not all(_is_nan(value) for value in values):
                found.append(f"{axis} {step}: {name} is {values[0]}, not {values[1]}")
    return found


def _is_nan(value):
    return isinstance(value, float) and math.isnan(value)


def _leftovers(run_dir):
    """Names that the end of a run must not leave; the same result twice supersedes nothing."""
    names = (".tmp-*", ".removing-*", ".superseded", ".exports/*")
    found = [path.name for name in names for path in run_dir.glob(name)]
    return [f"left behind: {found}"] if found else []


def on_training_thread(points):
    """What of a save was written, or waited for the disk, on the thread that trains."""
    return [point for _, point in points if ON_TRAINING_THREAD.match(point)]


def shortcomings(report):
    """Why a soak of this size shows less than it should, though nothing went wrong."""
    kills, saves = report["kills"], report["save_operations"]
    short = []
    if report["after_first_step"] < LATE_SHARE * kills:
        short.append(f"only {report['after_first_step']} of {kills} kills after the first step")
    missed = sorted({*saves["kinds_recorded"]} - {*saves["kinds_killed_before"]})
    if kills >= ENOUGH_FOR_ALL_KINDS and missed:
        short.append(f"no kill before these operations of a save: {missed}")
    return short

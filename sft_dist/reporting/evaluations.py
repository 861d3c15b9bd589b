"""The evaluations of a run as their files stand: waiting, claimed, generated, graded, failed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sft_dist.durable import read_json
from sft_dist.reporting.run_files import (
    COMPLETIONS,
    EVALUATIONS,
    FAILURE,
    GENERATION,
    GRADES,
    HEARTBEAT,
    REQUEST,
    SUMMARY,
    modified,
    number,
    text,
    whole,
)

State = Literal["waiting", "claimed", "generated", "graded", "failed"]


@dataclass(frozen=True)
class WorkerAttempt:
    """One worker's try at a request; `seen` is its last heartbeat by the file's time (Unix, s)."""

    attempt: int
    worker: str
    state: str
    completed: int
    total: int
    claimed: float | None
    seen: float | None
    reason: str | None


@dataclass(frozen=True)
class Evaluation:
    """One request and its files; times are those of the files (Unix, s)."""

    directory: Path
    step: int
    request: dict[str, Any]
    state: State
    attempts: list[WorkerAttempt]
    asked: float | None
    generated: float | None
    graded: float | None
    reason: str | None

    @property
    def prompt(self) -> str:
        """Name of the prompt; empty where the request does not say."""
        return text(self.request.get("prompt_name")) or ""

    @property
    def fingerprint(self) -> str:
        """Of the weights asked about; empty where the request does not say."""
        return text(self.request.get("weights_fingerprint")) or ""

    @property
    def series(self) -> str:
        """Equal for evaluations that can be compared: same prompt, decoding and problems."""
        names = ("prompt_name", "form", "sampling", "problems_file")
        return json.dumps([self.request.get(name) for name in names], sort_keys=True)

    @property
    def num_problems(self) -> int | None:
        """Problems asked for."""
        return whole(self.request.get("num_problems"))

    @property
    def is_open(self) -> bool:
        """Somebody still has to work on it."""
        return self.state in ("waiting", "claimed", "generated")


def read_evaluations(run_dir: Path) -> list[Evaluation]:
    """All evaluations, by step and then by the time they were asked for."""
    paths = sorted((run_dir / EVALUATIONS).glob(f"step-*/*/{REQUEST}"))
    found = [evaluation for path in paths if (evaluation := _read(path)) is not None]
    return sorted(found, key=lambda e: (e.step, e.asked or 0.0))


def failures(evaluation: Evaluation) -> Iterator[tuple[float, str]]:
    """(time, what) of every attempt that ended badly, and of the request's end if it failed."""
    for attempt in evaluation.attempts:
        if attempt.state in ("failed", "died"):
            why = attempt.reason or "no reason recorded"
            yield attempt.seen or 0.0, f"attempt {attempt.attempt} {attempt.state}: {why}"
    if evaluation.state == "failed":
        when = modified(evaluation.directory / FAILURE) or 0.0
        yield when, f"given up: {evaluation.reason}"


def _read(path: Path) -> Evaluation | None:
    directory, request = path.parent, read_json(path) or {}
    step = whole(request.get("step"))
    if step is None:
        step = _step_of_name(directory.parent.name)
    if step is None:
        return None
    attempts = [_attempt(directory, n) for n in _attempt_numbers(directory)]
    failure = read_json(directory / FAILURE)
    return Evaluation(
        directory=directory,
        step=step,
        request=request,
        state=_state(directory, attempts, failed=failure is not None),
        attempts=attempts,
        asked=modified(path),
        generated=modified(directory / COMPLETIONS),
        graded=modified(directory / SUMMARY),
        reason=str(failure.get("reason", "no reason recorded")) if failure else None,
    )


def _state(directory: Path, attempts: list[WorkerAttempt], *, failed: bool) -> State:
    if (directory / SUMMARY).exists() and (directory / GRADES).exists():
        return "graded"
    if (directory / COMPLETIONS).exists():
        return "generated"
    if failed:
        return "failed"
    return "claimed" if attempts and attempts[-1].state == "running" else "waiting"


def _attempt(directory: Path, attempt: int) -> WorkerAttempt:
    path = directory / f"attempt-{attempt}"
    beat = read_json(path / HEARTBEAT) or {}
    return WorkerAttempt(
        attempt=attempt,
        worker=text(beat.get("worker")) or "unknown",
        state=text(beat.get("state")) or "running",
        completed=whole(beat.get("completed")) or 0,
        total=whole(beat.get("total")) or 0,
        claimed=_claimed(path),
        seen=modified(path / HEARTBEAT),
        reason=text(beat.get("reason")),
    )


def _claimed(directory: Path) -> float | None:
    """When the worker began: by how long it says it took, else the oldest file's time.

    The directory's own time and the heartbeat's change with every beat.
    """
    facts = read_json(directory / GENERATION) or {}
    ended = modified(directory / GENERATION)
    took = [number(facts.get(name)) for name in ("load_seconds", "seconds")]
    known = [seconds for seconds in took if seconds is not None]
    if ended is not None and known:
        return ended - sum(known)
    times = [modified(path) for path in directory.glob("*")]
    return min((t for t in times if t is not None), default=None)


def _attempt_numbers(directory: Path) -> list[int]:
    names = (path.name.removeprefix("attempt-") for path in directory.glob("attempt-*"))
    return sorted(int(name) for name in names if name.isdigit())


def _step_of_name(name: str) -> int | None:
    digits = name.removeprefix("step-")
    return int(digits) if digits.isdigit() else None

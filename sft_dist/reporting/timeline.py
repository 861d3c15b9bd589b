"""What happened when: starts and resumes, checkpoints, evaluations, faults. From files and logs."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sft_dist.reporting.checkpoints import Checkpoint
from sft_dist.reporting.evaluations import Evaluation, failures
from sft_dist.reporting.run_files import LOGS, tail_lines
from sft_dist.reporting.state import RunState
from sft_dist.reporting.training import Attempt, Training

Kind = Literal["start", "resume", "checkpoint", "evaluation", "warning", "fault", "end"]

MAX_EVENTS = 400
LOG_BYTES = 1 << 20
OTHER_RANKS_BYTES = 1 << 16
MAX_RANKS = 64

_LOG_LINE = re.compile(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (WARNING|ERROR|CRITICAL) (\S+) (?:\| )?(.*)"
)


@dataclass(frozen=True)
class Event:
    """Something at a time (Unix, s)."""

    time: float
    kind: Kind
    what: str


@dataclass(frozen=True)
class Span:
    """Something that took from `began` to `ended` (Unix, s)."""

    lane: Literal["training", "evaluation"]
    began: float
    ended: float
    what: str


def spans(training: Training, evaluations: Sequence[Evaluation]) -> list[Span]:
    """Attempts of training, and evaluations from their claim to their publication."""
    found = [
        Span(
            "training", a.began, a.ended, f"attempt {a.number}: steps {a.first_step}-{a.last_step}"
        )
        for a in training.attempts
    ]
    for evaluation in evaluations:
        claims = [a.claimed for a in evaluation.attempts if a.claimed is not None]
        ended = evaluation.generated or max((a.seen or 0.0 for a in evaluation.attempts), default=0)
        if claims and ended >= claims[-1]:
            what = f"step {evaluation.step} ({evaluation.prompt}): {evaluation.state}"
            found.append(Span("evaluation", claims[-1], ended, what))
    return found


def events(
    run_dir: Path,
    training: Training,
    evaluations: Sequence[Evaluation],
    *,
    checkpoints: Sequence[Checkpoint],
    state: RunState,
) -> list[Event]:
    """Everything worth a line, by time; the earliest of more than `MAX_EVENTS` are left out."""
    found = [
        *_starts(training.attempts),
        *_saves(checkpoints),
        *_evaluated(evaluations),
        *_log_events(run_dir / LOGS),
        *_end(state),
    ]
    found.sort(key=lambda event: event.time)
    return found[-MAX_EVENTS:]


def _starts(attempts: Sequence[Attempt]) -> Iterator[Event]:
    for index, attempt in enumerate(attempts):
        if index == 0:
            yield Event(attempt.began, "start", "training started")
            continue
        before = attempts[index - 1]
        # Rows may be 10 steps apart: the step resumed from is known only to be before this one.
        lost = max(0, before.last_step - attempt.first_step + 1)
        again = f", at least {lost} steps done again" if lost else ""
        what = f"attempt {attempt.number} resumed; its first row is step {attempt.first_step}"
        yield Event(attempt.began, "resume", what + again)


def _saves(checkpoints: Sequence[Checkpoint]) -> Iterator[Event]:
    for checkpoint in checkpoints:
        if checkpoint.written is not None:
            yield Event(checkpoint.written, "checkpoint", f"{checkpoint.name} saved")
            if checkpoint.faults:
                what = f"{checkpoint.name} is damaged: {'; '.join(checkpoint.faults[:3])}"
                yield Event(checkpoint.written, "fault", what)


def _evaluated(evaluations: Sequence[Evaluation]) -> Iterator[Event]:
    for evaluation in evaluations:
        name = f"evaluation of step {evaluation.step} ({evaluation.prompt})"
        if evaluation.graded is not None:
            yield Event(evaluation.graded, "evaluation", f"{name} graded")
        for when, what in failures(evaluation):
            yield Event(when, "fault", f"{name}, {what}")


def _end(state: RunState) -> Iterator[Event]:
    if state.time is None:
        return
    if state.state in ("failed", "requeue", "finished"):
        kind: Kind = "fault" if state.state == "failed" else "end"
        yield Event(state.time, kind, f"{state.state}: {state.reason}")
    elif state.is_dead:
        when = state.last_row_time or state.time
        yield Event(when, "fault", "the trainer ended here without a word (killed?)")


def _log_events(logs: Path) -> Iterator[Event]:
    """Warnings and errors in the logs of the ranks; the same line of several ranks counts once."""
    seen: set[str] = set()
    for rank, path in enumerate(sorted(logs.glob("rank_*.log"))[:MAX_RANKS]):
        for line in tail_lines(path, max_bytes=OTHER_RANKS_BYTES if rank else LOG_BYTES):
            match = _LOG_LINE.match(line)
            if match is None or match[4] in seen:
                continue
            seen.add(match[4])
            when = time.mktime(time.strptime(match[1], "%Y-%m-%d %H:%M:%S"))
            kind: Kind = "warning" if match[2] == "WARNING" else "fault"
            yield Event(when, kind, f"{match[3]}: {match[4]}"[:500])

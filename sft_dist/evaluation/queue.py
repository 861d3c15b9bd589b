"""The run directory as a queue: requests, claims with a heartbeat, publication.

    <spec>/request.json          written by the trainer, atomically
    <spec>/attempt-1/            made by the worker that claims: mkdir is exclusive on every host
        heartbeat.json           {"worker","state","beat","completed","total"}; replaced while alive
        completions.jsonl        finished output, fsynced, then linked to <spec>/completions.jsonl
        generation.json          facts: weights proof, seconds, tokens, versions
    <spec>/completions.jsonl     the publication: exactly one attempt gets this name
    <spec>/failure.json          {"reason"}: this will not be generated
    <spec>/reported              its result or failure is in the run's record

A claim is stale when the *observer* sees its heartbeat unchanged for a while of its own monotonic
clock; clocks of different hosts are never compared. Whoever sees that claims the next attempt. A
worker thought dead that was only slow may still publish: generation happens at least once,
publication exactly once.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_dist.durable import read_json, sync_directory, write_atomically, write_json
from sft_dist.evaluation.request import EVALUATIONS, REQUEST_FILE, EvaluationRequest

logger = logging.getLogger(__name__)

COMPLETIONS_FILE = "completions.jsonl"
FAILURE_FILE = "failure.json"
GENERATION_FILE = "generation.json"
HEARTBEAT_FILE = "heartbeat.json"
REPORTED_FILE = "reported"
SUMMARY_FILE = "summary.json"

STOPPED = "stopped"  # the worker was told to leave: says nothing against the request
FAILED = "failed"  # the attempt raised
DIED = "died"  # the worker's parent saw it end
RUNNING = "running"
PUBLISHED = "published"


@dataclass(frozen=True)
class QueuedRequest:
    """A request and its directory; the files there are its state."""

    request: EvaluationRequest
    directory: Path

    @property
    def is_published(self) -> bool:
        """Its completions are there, whole."""
        return (self.directory / COMPLETIONS_FILE).exists()

    @property
    def is_graded(self) -> bool:
        """Its summary is there: nothing is left to do."""
        return (self.directory / SUMMARY_FILE).exists()

    @property
    def is_open(self) -> bool:
        """A worker should claim it, or has."""
        return not (self.is_published or (self.directory / FAILURE_FILE).exists())

    def failure(self) -> str | None:
        """Why it was given up; None if it was not, or was generated after all."""
        content = None if self.is_published else read_json(self.directory / FAILURE_FILE)
        return None if content is None else str(content.get("reason", "no reason recorded"))

    def attempts(self) -> list[int]:
        """Numbers of the attempts claimed so far, ascending."""
        names = (path.name.removeprefix("attempt-") for path in self.directory.glob("attempt-*"))
        return sorted(int(name) for name in names if name.isdigit())

    def attempt_directory(self, attempt: int) -> Path:
        """Where attempt number `attempt` (from 1) works."""
        return self.directory / f"attempt-{attempt}"

    def heartbeat(self, attempt: int) -> dict[str, Any]:
        """The last heartbeat of an attempt; empty where none was written yet."""
        return read_json(self.attempt_directory(attempt) / HEARTBEAT_FILE) or {}

    def failed_attempts(self) -> list[str]:
        """Why attempts were not published, in order; those stopped by will left out."""
        beats = ((attempt, self.heartbeat(attempt)) for attempt in self.attempts())
        return [
            f"attempt {attempt}: {beat.get('reason', 'no reason recorded')}"
            for attempt, beat in beats
            if beat.get("state") in (FAILED, DIED)
        ]

    def progress(self) -> int:
        """Completions finished by the attempt under way; 0 without one."""
        attempts = self.attempts()
        return int(self.heartbeat(attempts[-1]).get("completed", 0)) if attempts else 0

    def published_facts(self) -> dict[str, Any]:
        """generation.json of the attempt that was published; empty before that."""
        published = self.directory / COMPLETIONS_FILE
        for attempt in self.attempts():
            directory = self.attempt_directory(attempt)
            output = directory / COMPLETIONS_FILE
            # Without hard links the published file was moved away.
            if _is_same_file(output, published) or not output.exists():
                facts = read_json(directory / GENERATION_FILE)
                if facts is not None and published.exists():
                    return facts
        return {}


class EvaluationQueue:
    """All requests of a run. Any number of processes on any hosts may hold one."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._unreadable: set[Path] = set()

    def submit(self, request: EvaluationRequest, problems: str) -> QueuedRequest:
        """Write the request, durably; `problems` is the content of its problems file.

        A request that is there already stays, but learns where the weights lie now; one that was
        given up is opened again.
        """
        queued = QueuedRequest(request, request.directory(self.run_dir))
        queued.directory.mkdir(parents=True, exist_ok=True)
        problems_path = self.run_dir / request.problems_file
        if not problems_path.exists():
            write_atomically(problems_path, problems)
        _reopen(queued)
        if read_json(queued.directory / REQUEST_FILE) != request.to_json():
            write_json(queued.directory / REQUEST_FILE, request.to_json())
            sync_directory(queued.directory.parent)
        return queued

    def requests(self, skip: Callable[[Path], bool] = lambda _: False) -> Iterator[QueuedRequest]:
        """All requests by step, without those whose directory `skip` names."""
        for path in sorted((self.run_dir / EVALUATIONS).glob(f"step-*/*/{REQUEST_FILE}")):
            if skip(path.parent):
                continue
            queued = self._read(path)
            if queued is not None:
                yield queued

    def abandon(self, worker: str, reason: str) -> None:
        """Note for its open claims that `worker` is dead, so that nobody waits for it.

        Only for whoever knows that it is: its parent process, after waiting for it.
        """
        for queued in self.requests():
            for attempt in queued.attempts() if queued.is_open else []:
                beat = queued.heartbeat(attempt)
                if beat.get("worker") == worker and beat.get("state") == RUNNING:
                    path = queued.attempt_directory(attempt) / HEARTBEAT_FILE
                    write_json(path, {**beat, "state": DIED, "reason": reason})

    def _read(self, path: Path) -> QueuedRequest | None:
        row = read_json(path)
        try:
            if row is not None:
                return QueuedRequest(EvaluationRequest.from_json(row), path.parent)
        except (KeyError, TypeError) as error:
            if path not in self._unreadable:
                logger.warning("%s is not a request this version understands: %r", path, error)
        self._unreadable.add(path)
        return None


def _reopen(queued: QueuedRequest) -> None:
    """Put an earlier failure aside; attempts up to then no longer count against the request."""
    failure = queued.directory / FAILURE_FILE
    if failure.exists():
        last = queued.attempts()[-1] if queued.attempts() else 0
        (queued.directory / REPORTED_FILE).unlink(missing_ok=True)
        failure.rename(queued.directory / f"failure-{last}.json")


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False

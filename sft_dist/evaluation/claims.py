"""A worker's side of the queue: take a request, stay visibly alive, publish or give up."""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sft_dist.durable import create_once, publish_once, write_atomically, write_json
from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.queue import (
    COMPLETIONS_FILE,
    FAILED,
    FAILURE_FILE,
    GENERATION_FILE,
    HEARTBEAT_FILE,
    PUBLISHED,
    RUNNING,
    STOPPED,
    EvaluationQueue,
    QueuedRequest,
)

logger = logging.getLogger(__name__)


class Claim:
    """The right to generate one request as attempt number `attempt`."""

    def __init__(self, queued: QueuedRequest, attempt: int, worker: str) -> None:
        self.queued = queued
        self.attempt = attempt
        self.worker = worker
        self.directory = queued.attempt_directory(attempt)
        self._beats = 0
        self._completed = 0

    def beat(self, completed: int | None = None) -> None:
        """Show that the worker lives; `completed` counts finished completions."""
        self._completed = self._completed if completed is None else completed
        self._write_state(RUNNING)

    def publish(self, completions: Sequence[Completion], facts: dict[str, Any]) -> bool:
        """Write the output, then give it its public name; False if another attempt was first."""
        rows = "".join(json.dumps(asdict(row), allow_nan=False) + "\n" for row in completions)
        write_json(self.directory / GENERATION_FILE, {"attempt": self.attempt, **facts})
        write_atomically(self.directory / COMPLETIONS_FILE, rows)
        published = publish_once(
            self.directory / COMPLETIONS_FILE, self.queued.directory / COMPLETIONS_FILE
        )
        self._write_state(PUBLISHED if published else STOPPED)
        return published

    def give_up(self, reason: str) -> None:
        """End this attempt; the request stays open for the next."""
        self._write_state(FAILED, reason=reason)

    def release(self) -> None:
        """Leave the request to others, with nothing said against it."""
        self._write_state(STOPPED)

    def fail(self, reason: str) -> None:
        """End the request: it cannot be generated, by anyone."""
        record_failure(self.queued, reason)
        self._write_state(FAILED, reason=reason)

    def _write_state(self, state: str, **extra: str) -> None:
        self._beats += 1
        content = {
            "worker": self.worker,
            "state": state,
            "beat": self._beats,
            "completed": self._completed,
            "total": self.queued.request.num_completions,
            **extra,
        }
        write_json(self.directory / HEARTBEAT_FILE, content, durable=False)


def record_failure(queued: QueuedRequest, reason: str) -> None:
    """Write failure.json unless there is one."""
    content = {"reason": reason, "attempts": queued.attempts()}
    create_once(queued.directory / FAILURE_FILE, json.dumps(content, indent=1) + "\n")


class Claimer:
    """Finds work for one worker: unclaimed requests, and claims whose worker shows no life."""

    def __init__(
        self,
        queue: EvaluationQueue,
        worker: str | None = None,
        *,
        stale_seconds: float = 120.0,
        max_attempts: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stale_seconds` must exceed the attribute caching of the file system (NFS: 60 s)."""
        self.queue = queue
        self.worker = worker or f"{socket.gethostname()}-{os.getpid()}"
        self._stale_seconds = stale_seconds
        self._max_attempts = max_attempts
        self._clock = clock
        self._seen: dict[Path, tuple[dict[str, Any], float]] = {}
        self._closed: set[Path] = set()

    def claim_next(self) -> Claim | None:
        """Claim the earliest request that nobody works on; None when there is none now."""
        for queued in self.queue.requests(skip=self._closed.__contains__):
            if not queued.is_open:
                self._close(queued)
            elif (claim := self._try(queued)) is not None:
                return claim
        return None

    def has_open(self) -> bool:
        """Whether any request waits for completions, claimed or not."""
        return any(queued.is_open for queued in self.queue.requests(self._closed.__contains__))

    def _close(self, queued: QueuedRequest) -> None:
        # A failed request may be opened again, so only publication is remembered.
        if queued.is_published:
            self._closed.add(queued.directory)

    def _try(self, queued: QueuedRequest) -> Claim | None:
        attempts = queued.attempts()
        if attempts and not self._is_free(queued, attempts[-1]):
            return None
        if self._is_exhausted(queued, attempts):
            return None
        attempt = attempts[-1] + 1 if attempts else 1
        directory = queued.attempt_directory(attempt)
        try:
            directory.mkdir()
        except OSError:  # another worker was quicker, or the request is gone
            return None
        if not queued.is_open:  # the last attempt published since we looked
            directory.rmdir()
            return None
        claim = Claim(queued, attempt, self.worker)
        claim.beat()
        return claim

    def _is_free(self, queued: QueuedRequest, attempt: int) -> bool:
        """Whether the last attempt ended, or its heartbeat stood still for long enough."""
        beat = queued.heartbeat(attempt)
        if beat.get("state", RUNNING) != RUNNING:
            return True
        path = queued.attempt_directory(attempt)
        last, since = self._seen.get(path, (None, 0.0))
        if last != beat:
            self._seen[path] = (beat, self._clock())
            return False
        if self._clock() - since < self._stale_seconds:
            return False
        logger.warning("%s: no sign of life from %s, taking over", path, beat.get("worker"))
        return True

    def _is_exhausted(self, queued: QueuedRequest, attempts: Sequence[int]) -> bool:
        """Give the request up after `max_attempts` that were not stopped by will."""
        put_aside = (p.stem.removeprefix("failure-") for p in queued.directory.glob("failure-*"))
        first = max((int(name) for name in put_aside if name.isdigit()), default=0)
        beats = [queued.heartbeat(attempt) for attempt in attempts if attempt > first]
        counted = [beat for beat in beats if beat.get("state") != STOPPED]
        if len(counted) < self._max_attempts:
            return False
        reason = counted[-1].get("reason", "the worker died without a word")
        record_failure(queued, f"{len(counted)} attempts ended without completions: {reason}")
        return True

"""Who grades and logs the evaluations of a run: one process at a time, the trainer while it lives.

    RUN/evaluations/owner-3.json    {"owner","trainer","state","beat"}: the highest number owns
    RUN/evaluations/wanted.json     {"by","beat"}: a trainer waits for a server to let go

As with claims, a file whose content stands still for a while of the *observer's* clock belongs to
the dead, and the next number is created exclusively. A trainer takes over from an earlier trainer
at once: it holds the run directory's lock, so the other one has ended.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sft_dist.durable import create_once, read_json, write_json
from sft_dist.evaluation.request import EVALUATIONS

logger = logging.getLogger(__name__)

WANTED_FILE = "wanted.json"
HELD, RELEASED = "held", "released"


class OwnerLease:
    """The right to grade and log. `tend` it from one thread; a thread of its own keeps it alive."""

    def __init__(
        self,
        run_dir: Path,
        owner: str,
        *,
        is_trainer: bool,
        stale_seconds: float = 120.0,
        beat_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = run_dir / EVALUATIONS
        self._owner = owner
        self._is_trainer = is_trainer
        self._stale_seconds = stale_seconds
        self._beat_seconds = beat_seconds or stale_seconds / 24
        self._clock = clock
        self._number: int | None = None
        self._beats = 0
        self._seen: dict[str, tuple[Any, float]] = {}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="owner lease", daemon=True)

    def tend(self) -> bool:
        """Keep, take or give up the lease, as things stand; whether it is held now."""
        newest = self._newest()
        if self._number is not None and self._number == newest:
            if self._is_trainer or not self._is_wanted():
                return True
            self.release()
            return False
        self._number = None
        if newest and not self._is_free(newest):
            if self._is_trainer:
                self._ask()
            return False
        if not self._is_trainer and self._is_wanted():
            return False
        return self._take(newest + 1)

    def release(self) -> None:
        """Let go at once, so that nobody waits for a sign of life."""
        with self._lock:
            if self._number is not None:
                self._write(RELEASED)
            self._number = None

    def close(self) -> None:
        """Release, and end the thread."""
        self._done.set()
        self.release()
        if self._is_trainer:
            (self._directory / WANTED_FILE).unlink(missing_ok=True)

    def _take(self, number: int) -> bool:
        self._directory.mkdir(parents=True, exist_ok=True)
        content = {"owner": self._owner, "trainer": self._is_trainer, "state": HELD}
        if not create_once(self._path(number), json.dumps(content) + "\n"):
            return False  # another process was quicker
        with self._lock:
            self._number = number
            self._write(HELD)
        if self._is_trainer:
            (self._directory / WANTED_FILE).unlink(missing_ok=True)
        if not self._thread.is_alive() and not self._done.is_set():
            self._thread.start()
        logger.debug("process %s grades the evaluations of %s", self._owner, self._directory.parent)
        return True

    def _is_free(self, number: int) -> bool:
        """Whether the owner let go, shows no life, or is a trainer that this one has replaced."""
        content = read_json(self._path(number)) or {}
        if content.get("state") == RELEASED:
            return True
        if self._is_trainer and content.get("trainer"):
            return True
        return self._silent_seconds(f"owner-{number}", content) >= self._stale_seconds

    def _is_wanted(self) -> bool:
        """Whether a living trainer waits."""
        content = read_json(self._directory / WANTED_FILE)
        if content is None:
            return False
        return self._silent_seconds(WANTED_FILE, content) < self._stale_seconds

    def _ask(self) -> None:
        self._beats += 1
        content = {"by": self._owner, "beat": self._beats}
        write_json(self._directory / WANTED_FILE, content, durable=False)

    def _silent_seconds(self, name: str, content: Any) -> float:
        """How long this process has seen nothing else in the file `name`."""
        last, since = self._seen.get(name, (None, 0.0))
        if last != content:
            since = self._clock()
            self._seen[name] = (content, since)
        return self._clock() - since

    def _newest(self) -> int:
        names = (path.stem.removeprefix("owner-") for path in self._directory.glob("owner-*.json"))
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _path(self, number: int) -> Path:
        return self._directory / f"owner-{number}.json"

    def _write(self, state: str) -> None:
        """With the lock held."""
        assert self._number is not None
        self._beats += 1
        content = {
            "owner": self._owner, "trainer": self._is_trainer, "state": state, "beat": self._beats,
        }  # fmt: skip
        write_json(self._path(self._number), content, durable=False)

    def _keep(self) -> None:
        """Beat from a thread of its own: grading takes minutes."""
        while not self._done.wait(self._beat_seconds):
            with self._lock:
                if self._number is None:
                    continue
                try:
                    self._write(HELD)
                except OSError as error:  # a full disk or a hiccup of the network: try again
                    logger.warning("owner lease not renewed: %s", error)

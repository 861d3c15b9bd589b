"""What each rank does, and why the first one failed, in the launcher's store for all to read.

A connection of its own: that of the process group may be held by who waits in it. Whatever blocks
when the host of the store is cut off happens on a thread that nobody waits for.
"""

import json
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
ANSWER_SECONDS = 5.0
"""In which a store that can be reached answers."""
CONNECT_SECONDS = 60
FAILURE = "failure"

T = TypeVar("T")


@dataclass(frozen=True)
class Position:
    """What a rank was last known to do."""

    step: int
    doing: str
    moves: int
    """Places that training has passed: the same number at the same place on every rank."""
    beat: int
    """Counts up while the process runs."""


class Noticeboard:
    """One rank's view of it. Every question has an answer within seconds; None: no answer."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank, self._world_size = rank, world_size
        self._store: dist.Store | None = None
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def start(self, position: Callable[[], Position]) -> None:
        """Put `position()` up now and once a second, with a number that rises, until `stop`."""
        self._beating = threading.Thread(
            target=self._beat, args=(position,), name="beat", daemon=True
        )
        self._beating.start()

    def stop(self) -> None:
        """No more beats."""
        self._ended.set()
        if self._beating is not None:
            self._beating.join(ANSWER_SECONDS)

    def positions(self) -> dict[int, Position] | None:
        """What each rank has put up; those that have never been heard are left out."""
        return _answer(self._read_positions)

    def tell_failure(self, text: str) -> None:
        """Put up why this rank fails, unless another one was first."""
        _answer(lambda: self._connected().compare_set(FAILURE, "", text))

    def failure(self) -> str | None:
        """Why the first rank that failed did."""
        return _answer(self._read_failure)

    def _beat(self, position: Callable[[], Position]) -> None:
        beat = 0
        try:
            self._store = _launchers_store()
            while not self._ended.is_set():
                beat += 1
                told = json.dumps(asdict(replace(position(), beat=beat)))
                self._store.set(_key(self._rank), told)
                self._ended.wait(BEAT_SECONDS)
        except RuntimeError as error:  # of the store; training goes on, or finds out by itself
            if not self._ended.is_set():
                logger.warning("the launcher's store cannot be reached: %s", _first_line(error))

    def _connected(self) -> dist.Store:
        if self._store is None:
            raise RuntimeError("not connected")
        return self._store

    def _read_positions(self) -> dict[int, Position]:
        store, found = self._connected(), {}
        for rank in range(self._world_size):
            if store.check([_key(rank)]):
                found[rank] = Position(**json.loads(store.get(_key(rank))))
        return found

    def _read_failure(self) -> str | None:
        store = self._connected()
        return store.get(FAILURE).decode() if store.check([FAILURE]) else None


def _answer(question: Callable[[], T]) -> T | None:
    """The answer to a question, asked on a thread that may never come back."""
    box: list[T] = []

    def ask() -> None:
        with suppress(RuntimeError):  # of the store
            box.append(question())

    thread = threading.Thread(target=ask, name="ask", daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return box[0] if box else None


def _launchers_store() -> dist.Store:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # another start, another board
    store = dist.TCPStore(
        host, port, wait_for_workers=False, timeout=timedelta(seconds=CONNECT_SECONDS)
    )
    return dist.PrefixStore(f"sft_dist/watch/{again}", store)


def _key(rank: int) -> str:
    return f"rank {rank}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""A watch over the ranks: when one waits too long for the others, say for which.

Every rank puts what it is doing into the launcher's store once a second, from a thread beside
training; training itself only sets attributes. A rank that has not moved for
`--collective_timeout` looks at what the others do. When they all live and are as far as it is, a
step is long or the network hangs: the watch says so, and the backend's own timeout is the judge.
When some are silent, or have not come so far, it names them. The backend's timeout is later
(`distributed.backend_timeout`) and ends the wait with an error; where none can reach the thread
that trains (NCCL), the process is ended `END_AFTER` the verdict.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sft_dist.runtime.distributed import Ranks
from sft_dist.runtime.noticeboard import Noticeboard, Position

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
SILENT_SECONDS = 5.0
"""Without a beat for so long, a rank is stopped, killed or cut off."""
END_AFTER = 25.0
"""Seconds from the verdict to the end of a process that no exception has ended."""
LAST_WORDS_SECONDS = 30.0
"""For them, before the process ends with or without: a dead file system never answers."""
FAILED = 1


@dataclass(frozen=True)
class Verdict:
    """What the watch has found."""

    text: str
    """Which rank waits, since when, and for whom."""
    is_fault: bool
    """False when all live and are equally far: then a collective is slow, or hangs for all."""


class RankWatch:
    """This rank's part of the watch; `at` tells it that training moves."""

    def __init__(self, ranks: Ranks, timeout_seconds: float) -> None:
        self._ranks, self._timeout = ranks, timeout_seconds
        self._position = Position(0, "starting", 0, 0)
        self._moved = time.monotonic()
        self._board: Noticeboard | None = None
        self._stopping = threading.Event()
        self._ending = threading.Lock()
        self._verdict: Verdict | None = None
        self.last_words: Callable[[], None] = lambda: None
        """Called in the thread of the watch before it ends the process."""

    @property
    def verdict(self) -> str | None:
        """Said when the ranks were found to be stuck, and nothing has moved since."""
        found = self._verdict
        return found.text if found is not None else None

    def at(self, step: int, doing: str) -> None:
        """Training has come to this; costs nothing. All ranks pass the same places."""
        moves = self._position.moves + 1
        self._position = Position(step, doing, moves, 0)
        self._moved, self._verdict = time.monotonic(), None

    def where(self) -> str:
        """What this rank is doing, for messages."""
        return f"step {self._position.step}, {self._position.doing}"

    def tell_failure(self, text: str) -> None:
        """Let the other ranks know why this one leaves; the first that fails is heard."""
        if self._board is not None:
            self._board.tell_failure(f"rank {self._ranks.rank}: {text}")

    def others_failure(self) -> str | None:
        """What the first rank that failed has told, if it could."""
        return self._board.failure() if self._board is not None else None

    def stop(self) -> None:
        """No more to watch: the ranks part, or this one leaves in its own way."""
        self._stopping.set()
        with self._ending:  # does not return when the process is being ended already
            pass

    def start(self) -> None:
        """Begin to beat and to look."""
        self._board = Noticeboard(self._ranks.rank, self._ranks.world_size)
        self._board.start(lambda: self._position)
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def close(self) -> None:
        """Stop, and take the beats off the launcher's store."""
        self.stop()
        if self._board is not None:
            self._board.stop()

    def _run(self) -> None:
        spoke_at: float | None = None  # the value of `_moved` that the watch has spoken of
        due = 0.0
        while not self._stopping.wait(LOOK_SECONDS):
            moved = self._moved
            if time.monotonic() - moved < self._timeout:
                continue
            if spoke_at != moved:
                spoke_at, found = moved, self._judge(moved)
                self._verdict = found if self._moved == moved else None  # it may have gone on
                due = time.monotonic() + END_AFTER
            elif time.monotonic() > due and self._verdict is not None and self._verdict.is_fault:
                self._end_process()

    def _judge(self, moved: float) -> Verdict:
        """Look twice, `SILENT_SECONDS` apart."""
        assert self._board is not None
        before = self._board.positions()
        self._stopping.wait(SILENT_SECONDS)
        found = self._board.positions()
        said, is_fault = describe(before, found, world_size=self._ranks.world_size)
        text = (
            f"rank {self._ranks.rank} has not moved for {time.monotonic() - moved:.0f} s "
            f"({self.where()}; --collective_timeout {self._timeout:.0f}): {said}"
        )
        logger.log(logging.ERROR if is_fault else logging.WARNING, "%s", text)
        return Verdict(text, is_fault)

    def _end_process(self) -> None:
        with self._ending:
            if self._stopping.is_set():
                return
            at_last = threading.Timer(LAST_WORDS_SECONDS, os._exit, args=(FAILED,))
            at_last.daemon = True
            at_last.start()
            try:
                self.last_words()
            finally:
                os._exit(FAILED)


def describe(
    before: Mapping[int, Position] | None, after: Mapping[int, Position] | None, *, world_size: int
) -> tuple[str, bool]:
    """Which ranks the others wait for, and whether that is a fault.

    Args:
        before: what each rank did `SILENT_SECONDS` ago; None when the launcher does not answer.
        after: what each does now.
        world_size: ranks that have never been heard are not in either.
    """
    if before is None or after is None or not after:
        return "the launcher's store does not answer: the host of rank 0 is gone or cut off", True
    silent = [rank for rank in range(world_size) if _is_silent(before.get(rank), after.get(rank))]
    furthest = max(position.moves for position in after.values())
    behind = [r for r, p in after.items() if p.moves < furthest and r not in silent]
    parts = []
    if silent:
        last = after.get(silent[0])
        seen = f"last seen at step {last.step}, {last.doing}" if last else "never heard of"
        parts.append(
            f"no sign of life of {_named(silent)}, {seen}: stopped, or its host is cut off"
        )
    if behind:
        slow = after[behind[0]]
        parts.append(f"{_named(behind)} still at step {slow.step}, {slow.doing}")
    if parts:
        return "; ".join(parts), True
    step = max(position.step for position in after.values())
    return f"all ranks live and are at step {step}: it is slow, or the network hangs", False


def _is_silent(before: Position | None, after: Position | None) -> bool:
    if after is None:
        return True
    return before is not None and before.beat == after.beat


def _named(ranks: list[int]) -> str:
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(map(str, ranks))}"


@contextmanager
def watched(ranks: Ranks, timeout_seconds: float) -> Iterator[RankWatch]:
    """Watch while ranks work together; one rank alone waits for nobody."""
    watch = RankWatch(ranks, timeout_seconds)
    if ranks.world_size > 1:
        watch.start()
    try:
        yield watch
    finally:
        watch.close()

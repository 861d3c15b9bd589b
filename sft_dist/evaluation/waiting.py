"""What a person sees while evaluations are waited for: a bar on a terminal, lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from sft_dist.evaluation.watcher import Progress

logger = logging.getLogger(__name__)

LINE_SECONDS = 15.0


@contextmanager
def wait_view() -> Iterator["WaitView"]:
    """What to show progress with; the bar is gone afterwards, and lines go above it."""
    bar = tqdm(
        desc="waiting", unit="answer", dynamic_ncols=True, leave=False,
        disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bar, logging_redirect_tqdm():
        yield WaitView(bar)


class WaitView:
    """Answers decoded of the earliest open evaluation, with the time left."""

    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        self._bar = bar
        self._step: int | None = None
        self._told = time.monotonic()

    def show(self, progress: Progress | None) -> None:
        """How far it is now; None where nothing is known, or all is done."""
        if progress is None:
            return
        if not self._bar.disable:
            self._move(progress)
        elif time.monotonic() - self._told > LINE_SECONDS:
            self._told = time.monotonic()
            logger.info(
                "evaluating step %d: %d of %d answers%s; evaluations open: %d",
                progress.step, progress.completed, progress.total,
                "" if progress.completed else " (the engine starts, or reads the weights)",
                progress.num_pending,
            )  # fmt: skip

    def _move(self, progress: Progress) -> None:
        if progress.step != self._step:
            self._step = progress.step
            self._bar.reset(total=progress.total)  # the rate too: the wait before was for another
        decoded = progress.completed >= progress.total > 0
        self._bar.set_description_str(
            f"{'grading' if decoded else 'evaluating'} step {progress.step}", refresh=False
        )
        self._bar.n = progress.completed
        self._bar.refresh()

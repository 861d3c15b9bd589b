"""What evaluation costs the training loop: the time that rank 0 gives to it between two steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class EvaluationCost:
    """Adds up what stands inside `timed`, step by step."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._now = 0.0
        self._longest = 0.0
        self._steps: list[float] = []

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time inside towards the step under way."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self._now += seconds
            self._longest = max(self._longest, seconds)

    def take(self) -> float:
        """Seconds since the last call: a step's share. Once a step."""
        seconds, self._now = self._now, 0.0
        self._steps.append(seconds)
        return seconds

    def describe(self) -> str:
        """Share of the time since the beginning, the worst step but one in a hundred, and the stop.

        The longest stop is what the other ranks may have waited for rank 0 in a collective.
        """
        total = time.monotonic() - self._began
        steps = sorted([*self._steps, self._now])
        worst = steps[min(len(steps) - 1, int(0.99 * len(steps)))]
        share = sum(steps) / max(total, 1e-9)
        return (
            f"training stood {sum(steps):.2f} s of {total:.0f} s for evaluation ({share:.2%}), "
            f"99 % of the steps at most {1000 * worst:.0f} ms, longest stop "
            f"{1000 * self._longest:.0f} ms"
        )

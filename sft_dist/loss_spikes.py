"""A loss far above what it has been: noticed by a rule that one outlier cannot move. Pure."""

import statistics
from collections import deque

WINDOW = 100
"""Steps that say what is usual."""
FEWEST = 20
"""Steps before anything is judged: the first ones fall steeply."""
DEVIATIONS = 8.0
"""How far above the median is a spike. Iglewicz and Hoaglin (How to Detect and Handle Outliers,
1993) call 3.5 an outlier; a hard batch is one, and is no fault."""
NORMAL = 1.4826
"""Median absolute deviation -> standard deviation, of a normal distribution."""
LEAST_SPREAD = 0.02
"""Of the median: when losses barely differ, a little more is still no spike."""


class LossSpikes:
    """The losses of the last `WINDOW` steps of this process; a resumed run begins anew."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def judge(self, loss: float) -> str | None:
        """What was usual, when `loss` lies far above it; it then becomes part of what is usual."""
        found = None
        if len(self._losses) >= FEWEST:
            usual = statistics.median(self._losses)
            spread = NORMAL * statistics.median(abs(x - usual) for x in self._losses)
            spread = max(spread, LEAST_SPREAD * abs(usual))
            if loss > usual + DEVIATIONS * spread:
                found = f"{usual:.4f} with a spread of {spread:.4f} in {len(self._losses)} steps"
        self._losses.append(loss)
        return found

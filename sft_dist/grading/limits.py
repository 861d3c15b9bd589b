"""What the grader refuses to start on, so that no answer can cost more than a fraction of a second.

All limits are checked before the thing they limit is built.
"""

MAX_CHARS = 4_000  # of an answer that is parsed; identical texts and plain integers have no limit
MAX_DEPTH = 30  # of brackets in one another; each level costs about ten Python frames
MAX_TEXT_DEPTH = 4  # of text macros in one another
MAX_TREE_DEPTH = 100  # operations in one another
MAX_NODES = 1_500
MAX_DIGITS = 4_000  # of one number; Python converts no more than 4,300
MAX_BITS = 200_000  # of an exact integer that is computed
MAX_DENOMINATOR_BITS = 20_000  # fractions need a greatest common divisor, whose cost is quadratic
MAX_FACTORIAL = 2_000
MAX_TERMS = 500  # of a written-out sum, product or matrix
MAX_DETERMINANT = 4  # rows of a determinant that is expanded
MAX_SIGNS = 4  # plus-minus signs of one expression: 2 ** 4 readings
MAX_COST = 60_000  # work units of one comparison; one is about 3 microseconds


class UnreadableError(Exception):
    """The text is not in the grammar, or has more than one reasonable reading."""


class OverLimitError(Exception):
    """The decision would cost too much, or lies beyond the precision used here."""


class Budget:
    """Counts the work of one comparison."""

    def __init__(self, cost: int = MAX_COST) -> None:
        self._left = cost

    def spend(self, cost: int = 1) -> None:
        """Take `cost` units.

        Raises:
            OverLimitError: Nothing is left.
        """
        self._left -= cost
        if self._left < 0:
            raise OverLimitError("the comparison costs too much")

"""The smallest piece of an answer that the parser sees."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is number, letter, text, macro, op, begin, end, row or money.

    `spaced` says that white space stands before it, `bold` that it is a letter set in bold, as
    matrices and vectors are. Two tokens are the same token when kind and text are.
    """

    kind: str
    text: str
    spaced: bool = False
    value: Fraction | None = None
    bold: bool = False

"""Do two answers mean the same? Stages from cheap to dear; each verdict names the one that decided.

    compare_answers(answer, gold) -> Comparison

`identical` text, `integer` of any size, then both are read into trees: `structural` (same tree or
same tokens), `integer`, `rational`, `numeric`, `symbolic` values, `text` for words. Collections,
relations and the like are taken apart, and the dearest stage of their parts counts. The relation is
symmetric.
"""

import re
from dataclasses import dataclass
from typing import Literal

from sft_dist.grading.answer_token import Token
from sft_dist.grading.limits import Budget, OverLimitError, UnreadableError
from sft_dist.grading.matching import Matcher
from sft_dist.grading.statements import read_answer, without_stop
from sft_dist.grading.tokens import tokenize

_INTEGER = re.compile(
    r"([-+]?)(\d{1,3}(?:(?:\{,\}|,\\!|\\!|\\,)\d{3})+|[1-9]\d{0,2}(?:,\d{3})+|\d+)"
)
_DANGLING = re.compile(r"(?<!\\)(?:\\\\)*\\$")  # an odd number of backslashes at the end
# what mpmath and Python raise for values beyond them; our own limits should come first
_BEYOND = (ArithmeticError, ValueError, TypeError, NotImplementedError, RecursionError)


@dataclass(frozen=True)
class Comparison:
    """The verdict on a pair of answers, and the stage that reached it."""

    verdict: Literal["correct", "wrong", "unparseable", "timeout"]
    stage: str


def compare_answers(answer: str, gold: str) -> Comparison:
    """Decide whether `answer` means what `gold` means. Never raises."""
    answer, gold = _outer(answer), _outer(gold)
    if answer == gold:
        return Comparison("correct", "identical")
    first, second = _integer(answer), _integer(gold)
    if first is not None and second is not None:
        return Comparison("correct" if first == second else "wrong", "integer")
    try:
        return _compare_read(answer, gold)
    except UnreadableError:
        return Comparison("unparseable", "parse")
    except (OverLimitError, RecursionError):
        return Comparison("unparseable", "limit")


def _compare_read(answer: str, gold: str) -> Comparison:
    answer_tokens, gold_tokens = without_stop(tokenize(answer)), without_stop(tokenize(gold))
    if _same_tokens(answer_tokens, gold_tokens):
        return Comparison("correct", "structural")
    left, right = read_answer(answer, answer_tokens), read_answer(gold, gold_tokens)
    matcher = Matcher(Budget())
    try:
        equal = matcher.same(left, right)
    except (OverLimitError, *_BEYOND):
        return Comparison("timeout", "limit")
    return Comparison("correct" if equal else "wrong", matcher.stage)


def _same_tokens(first: list[Token], second: list[Token]) -> bool:
    return len(first) == len(second) > 0 and all(
        a.kind == b.kind and a.text == b.text for a, b in zip(first, second, strict=True)
    )


def _outer(text: str) -> str:
    """Take off white space and the dollars or brackets of mathematics around the whole answer."""
    text = _stripped(text)
    for opening, closing in (
        ("$$", "$$"),
        ("$", "$"),
        ("\\(", "\\)"),
        ("\\[", "\\]"),
    ):
        inner = text[len(opening) : -len(closing)]
        if (
            len(text) > len(opening) + len(closing)
            and text.startswith(opening)
            and text.endswith(closing)
            and closing not in inner
        ):
            return _stripped(inner)
    return text


def _stripped(text: str) -> str:
    r"""Take off white space at both ends, and what is left of a control space (`5\ `)."""
    bare = text.strip()
    if text != text.rstrip() and _DANGLING.search(bare):
        return bare[:-1].rstrip()
    return bare


def _integer(text: str) -> str | None:
    """Return a whole number in one spelling, without converting it: it may have any length."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = re.sub(r"\D", "", match[2]) if not match[2].isdigit() else match[2]
    if not digits.isascii():
        return None
    digits = digits.lstrip("0") or "0"
    return "-" + digits if match[1] == "-" and digits != "0" else digits

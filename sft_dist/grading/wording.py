"""What words mean when the other answer is not words: a number, a set, letters."""

import re

from sft_dist.grading.forms import is_empty_set, is_expression
from sft_dist.grading.numerals import fraction_in_words, number_in_words
from sft_dist.grading.tree import Node, number

_NO_SOLUTION = {"no solution", "no solutions", "no real solution", "no real solutions", "empty set"}
_PLACED = re.compile(r"(?:on|in|at) (?=\w)")
_REAL_NUMBERS = Node("const", (), "mathbb R")
_ALL_REAL = {"all real numbers", "all reals", "real numbers", "the real numbers"}


def meaning(words: str, other: Node) -> bool | Node:
    """Say whether `words` mean `other`, or which tree they mean, to be compared with it."""
    if other.op == "text":
        return _same_phrase(_spelled(words), _spelled(other.value))
    if is_empty_set(other):
        return words in _NO_SOLUTION
    if words in _ALL_REAL:
        return _REAL_NUMBERS
    letters = _letters_of(other)
    if letters is not None:
        return (letters if len(letters) == 1 else letters.lower()) == words
    whole = number_in_words(words)
    value = fraction_in_words(words) if whole is None else whole
    return number(value) if value is not None and is_expression(other) else False


def _spelled(words: str) -> str:
    words = words.replace("-", " ").removeprefix("the ").strip()
    return words.replace("solutions", "solution") if words.startswith("no ") else words


def _same_phrase(left: str, right: str) -> bool:
    """`on Sunday` is `Sunday`; two prepositions are compared, so `in front` is not `on front`."""
    return left == right or left == _PLACED.sub("", right, 1) or right == _PLACED.sub("", left, 1)


def _letters_of(node: Node) -> str | None:
    """Return a product of single letters as the word it spells; else None."""
    if node.op in ("sym", "const"):
        return str(node.value) if len(str(node.value)) == 1 else None
    if node.op != "mul":
        return None
    parts = [_letters_of(arg) for arg in node.args]
    return None if None in parts else "".join(part or "" for part in parts)

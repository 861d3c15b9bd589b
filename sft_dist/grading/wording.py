"""What words mean when the other answer is not words: a number, a set, letters."""

from sft_dist.grading.forms import is_empty_set, is_expression
from sft_dist.grading.numerals import fraction_in_words, number_in_words
from sft_dist.grading.tree import Node, number

_NO_SOLUTION = {"no solution", "no solutions", "no real solution", "no real solutions", "empty set"}
_REAL_NUMBERS = Node("const", (), "mathbb R")
_ALL_REAL = {"all real numbers", "all reals", "real numbers", "the real numbers"}


def meaning(words: str, other: Node) -> bool | Node:
    """Say whether `words` mean `other`, or which tree they mean, to be compared with it."""
    if other.op == "text":
        return _spelled(words) == _spelled(other.value)
    if is_empty_set(other):
        return words in _NO_SOLUTION
    if words in _ALL_REAL:
        return _REAL_NUMBERS
    letters = _letters_of(other)
    if letters is not None:
        return (letters if len(letters) == 1 else letters.lower()) == words
    value = number_in_words(words) or fraction_in_words(words)
    return number(value) if value is not None and is_expression(other) else False


def _spelled(words: str) -> str:
    return words.replace("-", " ").removeprefix("the ").strip()


def _letters_of(node: Node) -> str | None:
    """Return a product of single letters as the word it spells; else None."""
    if node.op in ("sym", "const"):
        return str(node.value) if len(str(node.value)) == 1 else None
    if node.op != "mul":
        return None
    parts = [_letters_of(arg) for arg in node.args]
    return None if None in parts else "".join(part or "" for part in parts)

r"""Grammar of whole answers: lists, equations, inequalities, intervals, units, words, times.

read_answer(text) -> tree
"""

import re

from sft_dist.grading import units, vocabulary
from sft_dist.grading.answer_token import Token
from sft_dist.grading.atoms import read_atom
from sft_dist.grading.characters import fold
from sft_dist.grading.cursor import Cursor, Grammar
from sft_dist.grading.dates import date_in_words
from sft_dist.grading.expressions import read_factor, read_product, read_sum
from sft_dist.grading.limits import MAX_TREE_DEPTH, OverLimitError, UnreadableError
from sft_dist.grading.quantities import at_word, read_quantity, read_worded_label, worded
from sft_dist.grading.tokens import tokenize
from sft_dist.grading.tree import Node, depth

_SET_OPERATIONS = {"cup": "union", "cap": "inter", "setminus": "minus"}
_LONG_DIGITS = re.compile(
    r"\(?\s*(?:\\(?:text|mathrm)\s*\{)?\s*([0-9A-F]*[A-F][0-9A-F]*)\s*\}?\s*\)?\s*_\s*\{?\s*(\d\d)\s*\}?"
)
_LEADING_CHOICE = re.compile(
    r"(?:(?:\{ )?\( ([A-E]) \)(?: \})?|([A-E]) [:.)])(?= |$)"  # texts of tokens, joined by blanks
)
_TRAILING = {".", ",", ";", ":", "\\\\"}
_WORDS_ONLY = re.compile(r"[^\W\d_]{2,}(?:[\s'-]+[^\W\d_]+)*[.!]?")


def read_answer(text: str, tokens: list[Token] | None = None) -> Node:
    """Read an answer into a tree; `tokens` are those of `text` where the caller has them.

    Raises:
        UnreadableError: It is outside the grammar or ambiguous.
        OverLimitError: It is too large.
    """
    long_digits = _LONG_DIGITS.fullmatch(fold(text).strip())
    if long_digits and all(int(digit, 36) < int(long_digits[2]) for digit in long_digits[1]):
        return Node("based", (), (long_digits[1].lstrip("0"), int(long_digits[2])))
    tokens = list(tokenize(text) if tokens is None else tokens)
    date = date_in_words(text)
    if date is not None:
        return Node("text", (), date)
    tokens = without_stop(tokens)
    choice = _leading_choice(tokens)
    if choice is not None:
        letter, length = choice
        tokens[:length] = [Token("text", f"({letter})")]
    if _is_plain_builder(tokens):
        tokens[0], tokens[-1] = Token("op", "\\{"), Token("op", "\\}")
    if _WORDS_ONLY.fullmatch(text.strip()) and _is_prose(tokens):
        return worded(text)
    cursor = Cursor(tokens, GRAMMAR)
    answer = read_list(cursor)
    if not cursor.at_end():
        raise UnreadableError(f"{cursor.peek().text!r} where the answer should end")
    if depth(answer) > MAX_TREE_DEPTH:
        raise OverLimitError("operations nested too deep")
    return answer


def without_stop(tokens: list[Token]) -> list[Token]:
    """Return the tokens less the punctuation at the end of a sentence or a row."""
    end = len(tokens)
    while end and tokens[end - 1].kind in ("op", "row") and tokens[end - 1].text in _TRAILING:
        end -= 1
    return tokens[:end]


def _leading_choice(tokens: list[Token]) -> tuple[str, int] | None:
    r"""`(C) 5`, `\mathbf{(C)}\ 5`: the letter of a choice before its value, and its length."""
    shown = " ".join(token.text for token in tokens[:5])
    match = _LEADING_CHOICE.match(shown)
    if match is None:
        return None
    length = match[0].count(" ") + 1
    following = tokens[length] if length < len(tokens) else None
    beside = following is not None and following.kind == "number" and match[2] is None
    if following is None or not (following.spaced or beside):
        return None
    return match[1] or match[2], length


def _is_plain_builder(tokens: list[Token]) -> bool:
    """`{x | x > 0}` without backslashes."""
    texts = [token.text for token in tokens]
    return texts[:1] == ["{"] and texts[-1:] == ["}"] and texts[2:3] in (["|"], [":"])


def _is_prose(tokens: list[Token]) -> bool:
    """Plain words alone, such as `right triangle` or `none of these`."""
    words = [token for token in tokens if token.kind == "text" and len(token.text) > 1]
    joined = any(units.words_of(token.text) in ("and", "or") for token in words)
    plain = all(
        token.kind != "number" and (token.kind != "op" or token.text in "-'") for token in tokens
    )
    return bool(words) and not joined and plain


def read_list(cursor: Cursor) -> Node:
    """Read statements separated by commas, semicolons, `and`, `or`."""
    items = [_read_statement(cursor)]
    joint = ","
    while True:
        found = _accept_separator(cursor)
        if found is None:
            break
        joint = found if found != "," else joint
        items.append(_read_statement(cursor))
    return items[0] if len(items) == 1 else cursor.node("list", *items, value=joint)


def _accept_separator(cursor: Cursor) -> str | None:
    found = "," if cursor.accept("op", ",", ";") else None
    if cursor.at("text"):
        words = units.words_of(cursor.peek().text)
        if words in ("and", "or"):
            cursor.take()
            return words
    elif cursor.accept("macro", "lor"):
        return "or"
    elif cursor.accept("macro", "land") or cursor.accept("op", "&"):
        return "and"
    return found


def _read_statement(cursor: Cursor) -> Node:
    """Read sides joined by relation signs."""
    relations: list[str] = []
    sides: list[Node] = []
    if cursor.at("op", "=") or cursor.at("macro", "approx"):
        cursor.take()
    label = read_worded_label(cursor)
    if label is not None:
        sides.append(label)
        relations.append("=")
    while True:
        sides.append(_read_set_expression(cursor))
        if not cursor.at_relation():
            break
        relations.append(_read_relation(cursor))
    if cursor.accept("macro", "pmod", "mod"):
        sides[-1] = cursor.node("mod", sides[-1], _read_modulus(cursor))
    if not relations:
        return sides[0]
    return cursor.node("rel", *sides, value=tuple(relations))


def _read_relation(cursor: Cursor) -> str:
    if cursor.accept("macro", "not"):
        inner = _read_relation(cursor)
        if inner not in ("=", "in"):
            raise UnreadableError("a crossed-out relation")
        return "!=" if inner == "=" else "notin"
    return vocabulary.RELATIONS[cursor.take().text]


def _read_modulus(cursor: Cursor) -> Node:
    if cursor.accept("op", "{"):
        modulus = cursor.read_sum()
        cursor.expect("op", "}")
        return modulus
    return read_sum(cursor)


def _read_set_expression(cursor: Cursor) -> Node:
    left = _read_ratio(cursor)
    if cursor.accept("macro", "choose"):  # without the braces that TeX asks for
        left = cursor.node("binom", left, _read_ratio(cursor))
    while True:
        if cursor.at("macro", *_SET_OPERATIONS):
            name = _SET_OPERATIONS[cursor.take().text]
        elif left.op in ("seq", "union") and cursor.accept("letter", "U"):
            name = "union"
        else:
            return left
        left = cursor.node(name, left, _read_ratio(cursor))


def _read_ratio(cursor: Cursor) -> Node:
    """`3:4` is a ratio or a time of day; which one is settled when comparing."""
    first = read_quantity(cursor)
    parts = [first]
    while (not cursor.bar_closes and cursor.at("op", ":")) or at_word(cursor, "to"):
        cursor.take()
        parts.append(read_quantity(cursor))
    if len(parts) == 1:
        return first
    last = parts[-1]
    if last.op == "unit" and first.op != "unit":  # 3:30 p.m.
        ratio = cursor.node("ratio", *parts[:-1], last.args[0])
        return cursor.node("unit", ratio, value=last.value)
    if first.op == "unit" and first.value in ("a.m.", "p.m."):
        ratio = cursor.node("ratio", first.args[0], *parts[1:])
        return cursor.node("unit", ratio, value=first.value)
    return cursor.node("ratio", *parts)


GRAMMAR = Grammar(read_list, read_sum, read_product, read_factor, read_atom)

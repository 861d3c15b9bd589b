"""Grammar of values with units, money, and words."""

import re
from fractions import Fraction

from sft_dist.grading import units
from sft_dist.grading.arguments import make_based
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.numerals import fraction_in_words, number_in_words
from sft_dist.grading.tree import Node, number

_WORDED_CHOICE = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.:)])\s*([A-Za-z].+)")
_CHOICE = re.compile(r"\(([A-Z])\)[.:]?|([A-Z])[.):]")
_NAMED_CHOICE = re.compile(r"(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*\(?([A-Z])\)?[.]?")
_PARENTHESIS = re.compile(r"\(([A-Za-z][A-Za-z -]+)\)")
_JOINTS = ("and", "or", "to")
_ANNOUNCEMENTS = {"answer", "the answer", "the answer is", "answer is", "final answer",
                  "the final answer is", "final answer is", "approximately", "about",
                  "there are", "there is", "there are exactly", "exactly",
                  "a total of"}  # fmt: skip


def worded(phrase: str) -> Node:
    """Read words: `Option A` and `choice (A)` are the letter, `five dollars` a quantity."""
    named = _NAMED_CHOICE.fullmatch(phrase.strip())
    if named:
        return Node("text", (), named[1])
    words = units.words_of(phrase)
    count, _, noun = words.rpartition(" ")
    amount = number_in_words(count)
    unit = units.measure(noun)
    if amount is None or unit is None:
        return Node("text", (), words)
    return Node("unit", (number(amount),), unit)


def _restated(phrase: str) -> Fraction | int | None:
    """Return the number in `(forty-two)`."""
    match = _PARENTHESIS.fullmatch(phrase)
    if match is None:
        return None
    whole = number_in_words(match[1])
    return fraction_in_words(match[1]) if whole is None else whole


def at_word(cursor: Cursor, *words: str) -> bool:
    """True if the next token is one of these words."""
    return cursor.at("text") and units.words_of(cursor.peek().text) in words


def read_worded_label(cursor: Cursor) -> Node | None:
    """Read `Total:` before a value, inside or outside a text macro; None if there is none."""
    name = cursor.peek().text.strip()
    outside = cursor.at("op", ":", offset=1)
    after = cursor.peek(2 if outside else 1).kind
    if not cursor.at("text") or not (outside or name.endswith(":")) or len(name.rstrip(":")) < 2:
        return None
    words = units.words_of(name)
    if after in ("text", "end of answer") or words in _ANNOUNCEMENTS or units.qualifies(words):
        return None
    cursor.take()
    cursor.accept("op", ":")
    return cursor.node("text", value=words)


def _read_base(cursor: Cursor, value: Node) -> Node:
    """`45 base 8`."""
    radix = cursor.take().value
    if value.op != "num" or value.value.denominator != 1 or radix is None:
        raise UnreadableError("a base after what is no whole number")
    return make_based(cursor, str(value.value), int(radix) if radix.denominator == 1 else None)


def read_quantity(cursor: Cursor) -> Node:
    """Read a value with its unit, an amount of money, or words."""
    negative = cursor.at("op", "-") and cursor.at("money", offset=1)
    if negative:
        cursor.take()
    if cursor.at("money"):
        return _read_money(cursor, negative=negative)
    if cursor.at("text"):
        return _read_text_first(cursor)
    return _read_units(cursor, cursor.grammar.read_sum(cursor))


def _read_money(cursor: Cursor, *, negative: bool) -> Node:
    unit = units.currency(cursor.take().text)
    value = cursor.grammar.read_sum(cursor)
    if negative:
        value = cursor.node("neg", value)
    if cursor.at("text"):
        found, factor = units.read_unit(_take_phrase(cursor))
        if found not in ("", unit):
            unit = f"{unit} {found}"
        value = _scaled(cursor, value, factor)
    return cursor.node("unit", value, value=unit)


def _scaled(cursor: Cursor, value: Node, factor: int) -> Node:
    return value if factor == 1 else cursor.node("mul", value, number(factor))


def _read_units(cursor: Cursor, value: Node) -> Node:
    """Read the unit after a value; several values with units, as in `5 feet 3 inches`, stay."""
    if cursor.accept("op", "%"):
        return cursor.node("unit", value, value="%")
    if cursor.at("money"):  # 30 $
        return cursor.node("unit", value, value=units.currency(cursor.take().text))
    if not cursor.at("text") or at_word(cursor, *_JOINTS):
        return value
    phrase = _take_phrase(cursor)
    if phrase in ("base", "in base") and cursor.at("number"):
        return _read_base(cursor, value)
    if phrase == "times" and _at_statement_end(cursor):  # `3 times`, not `3 times 4`
        return cursor.node("unit", value, value="time")
    restated = _restated(phrase)
    if restated is not None:  # a second claim of the value
        return cursor.node("rel", value, number(restated), value=("=",))
    unit, factor = units.read_unit(phrase)
    value = _scaled(cursor, value, factor)
    if unit:
        value = cursor.node("unit", value, value=unit)
    if cursor.at("number"):
        return cursor.node("compound", value, _read_units(cursor, cursor.grammar.read_sum(cursor)))
    return value


def _take_phrase(cursor: Cursor) -> str:
    r"""Take words with what stands between them: `\text{cm}^2`, `\text{m}/\text{s}`."""
    parts: list[str] = []
    while True:
        if cursor.at("text") and not at_word(cursor, *_JOINTS):
            parts.append(" " + cursor.take().text.strip())
        elif parts and cursor.at("text", offset=1) and _at_filler(cursor):
            cursor.take()
        elif cursor.at("op", "^") and cursor.at("number", offset=1):
            cursor.take()
            parts.append("^" + cursor.take().text)
        elif cursor.at("op", "^") and cursor.at("op", "{", offset=1):
            parts.append("^" + _take_braced_power(cursor))
        elif cursor.at("op", "/") and cursor.at("text", offset=1):
            cursor.take()
            parts.append("/")
        elif parts and cursor.at("op", "/") and cursor.at("letter", "h", "s", offset=1):  # km/h
            cursor.take()
            parts.append("/" + cursor.take().text)
        else:
            return "".join(parts).strip()


def _at_filler(cursor: Cursor) -> bool:
    """The article of `3/4 of a mile`, the full stop of `sq. ft.`."""
    return cursor.at("letter", "a") or cursor.at("op", ".")


def _take_braced_power(cursor: Cursor) -> str:
    cursor.take()
    cursor.expect("op", "{")
    power = cursor.expect("number").text if cursor.at("number") else ""
    cursor.expect("op", "}")
    return power


def _read_text_first(cursor: Cursor) -> Node:
    """Words alone, a choice letter before a value, or a leading unit."""
    start = cursor.peek().text
    if len(start.strip()) == 1 and not _phrase_is_alone(cursor):
        return _read_units(cursor, cursor.grammar.read_sum(cursor))
    phrase = _take_words(cursor)
    words = units.words_of(phrase)
    if words in _ANNOUNCEMENTS:
        cursor.accept("op", ":")
    if _at_statement_end(cursor):
        valued = _WORDED_CHOICE.fullmatch(phrase.strip())
        if valued:
            value = cursor.node("text", value=units.words_of(valued[3]))
            return cursor.node("choice", value, value=valued[1] or valued[2])
        return worded(phrase)
    choice = _CHOICE.fullmatch(phrase.strip())
    if choice:
        label = choice[1] or choice[2]
        return cursor.node("choice", read_quantity(cursor), value=label)
    if words in _ANNOUNCEMENTS:
        return read_quantity(cursor)
    unit, factor = units.read_unit(phrase)
    if unit not in units.LEADING_UNITS or factor != 1:
        raise UnreadableError(f"{phrase!r} before a value")
    return cursor.node("unit", _read_units(cursor, cursor.grammar.read_sum(cursor)), value=unit)


def _phrase_is_alone(cursor: Cursor) -> bool:
    return cursor.peek(1).kind in ("end of answer", "text") or cursor.at("op", ",", offset=1)


def _take_words(cursor: Cursor) -> str:
    parts: list[str] = []
    while cursor.at("text") or (parts and cursor.at("letter") and cursor.at("text", offset=1)):
        if parts and at_word(cursor, *_JOINTS):
            break
        parts.append(cursor.take().text.strip())
    return " ".join(parts)


def _at_statement_end(cursor: Cursor) -> bool:
    return (
        cursor.at_end()
        or cursor.at_relation()
        or cursor.at("op", ",", ";", ")", "]", "}", "\\}", "&", ":")
        or cursor.at("text")
        or cursor.at("macro", "lor", "land")
    )

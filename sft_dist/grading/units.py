"""Unit phrases and words: one spelling for what means the same, nothing dropped from the rest.

`cm`, `centimeters` are one unit; `square feet`, `ft^2` are one; `kg` and `g` are two. `million` is
a factor, not a unit. A phrase with a word that changes the meaning (`or`, `more`, `squared`, `mod`)
is no unit, and the answer with it is refused.
"""

import re

from sft_dist.grading import vocabulary
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.numerals import number_in_words, scale_word

_SYNONYMS = {
    "cm": "centimeter centimetre cms", "mm": "millimeter millimetre",
    "km": "kilometer kilometre kms",
    "m": "meter metre", "in": "inch inche", "ft": "foot feet", "yd": "yard yds", "mi": "mile",
    "g": "gram gm gms", "kg": "kilogram kilo kgs", "mg": "milligram", "lb": "pound lbs",
    "oz": "ounce", "s": "second sec secs", "min": "minute mins", "h": "hour hr hrs",
    "d": "day", "l": "liter litre L", "ml": "milliliter millilitre mL", "mph": "mi/h",
    "degree": "deg degrees", "dollar": "usd buck", "cent": "¢", "euro": "€ eur", "£": "gbp",
    "%": "percent pct percentage", "radian": "rad", "a.m.": "am", "p.m.": "pm",
    "cc": "cm^3", "child": "children", "person": "people", "unit": "", "gal": "gallon",
}  # fmt: skip
_CANONICAL = {
    spelling: unit
    for unit, spellings in _SYNONYMS.items()
    for spelling in [unit, *spellings.split()]
}
_LETTERS = frozenset("mslghdLNJWVAKCF")  # that stand for a unit alone
_FILLERS = {"of", "the", "a", "an", "total"}
_NOT_ALONE = {"prime", "negative", "inverse", "positive"}  # `5 negative integers` are five
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_CURRENCIES = {"dollar": "dollar", "€": "euro", "£": "£", "¥": "¥", "₹": "₹"}
LEADING_UNITS = {"dollar", "euro", "£", "¥", "₹", "a.m.", "p.m.", "rs", "us"}


def currency(sign: str) -> str:
    """Return the unit that a money sign stands for."""
    return _CURRENCIES[sign]


def words_of(text: str) -> str:
    """Return a phrase in lower case without punctuation; a lone letter keeps its case."""
    text = re.sub(r"\b([ap])\.\s*m\b\.?", r"\1m", text, flags=re.IGNORECASE)
    words = re.sub(r"[^\w\s/^%¢€-]", " ", text).replace("_", " ").split()
    phrase = " ".join(words)
    return phrase if len(phrase) == 1 else phrase.lower()


def qualifies(words: str) -> bool:
    """True if one of the words changes what a value next to them says (`at least`, `not`)."""
    return any(word in vocabulary.NOT_UNITS for word in words.split())


def read_unit(text: str) -> tuple[str, int]:
    """Return the canonical unit of a phrase and the factor in it (`million` is 10**6).

    Raises:
        UnreadableError: The phrase is more than a unit.
    """
    parts: list[str] = []
    factor, divided, power = 1, False, 1
    for word in _split_phrase(text):
        scale = scale_word(word)
        if scale is not None and not parts:
            factor *= scale
        elif word in ("/", "per"):
            divided = True
        elif word in _POWERS:
            power = _POWERS[word]
        elif word not in _FILLERS:
            _refuse_meaningful(word)
            parts.append(("/" if divided else "") + _with_power(_canonical(word), power))
            divided, power = False, 1
    if divided or power != 1 or (len(parts) == 1 and _changes_value(parts[0])):
        raise UnreadableError(f"unit {text!r}")
    unit = " ".join(parts)
    return {"mi /h": "mph"}.get(unit, unit), factor


def _split_phrase(text: str) -> list[str]:
    return re.sub(r"\s*([/])\s*", r" \1 ", words_of(text).replace("-", " ")).split()


def _changes_value(unit: str) -> bool:
    """True for a letter that is no unit (`5 i` in words), or a word that means more on its own."""
    return unit in _NOT_ALONE or (len(unit) == 1 and unit.isalpha() and unit not in _LETTERS)


def _refuse_meaningful(word: str) -> None:
    number_word = number_in_words(word) is not None
    if word in vocabulary.NOT_UNITS or number_word or re.search(r"\d", word.split("^")[0]):
        raise UnreadableError(f"{word!r} after a value is no unit")


def measure(noun: str) -> str | None:
    """Return the unit that a word names, None for any other noun."""
    return _CANONICAL.get(noun) or _CANONICAL.get(noun.removesuffix("s"))


def compatible(first: str, second: str) -> bool:
    """True if two units are one; a bare degree may be one of temperature."""
    return first == second or (
        "degree" in (first, second) and first.split()[0] == second.split()[0] == "degree"
    )


def _canonical(word: str) -> str:
    base, _, power = word.partition("^")
    for spelling in (base, base.removesuffix("s"), base.removesuffix("es")):
        if spelling in _CANONICAL:
            unit = _CANONICAL[spelling]
            return _with_power(unit, int(power)) if power.isdigit() else unit
    if power:
        raise UnreadableError(f"unit {word!r}")
    return base.removesuffix("s") if len(base) > 3 and not base.endswith("ss") else base


def _with_power(unit: str, power: int) -> str:
    return unit if power == 1 else f"{unit}^{power}"

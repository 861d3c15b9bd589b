"""Letters of plain text and of text macros: names of functions, words, or single letters.

`pi` is a name, `August` a word, `xy` a product, `sinx` a name and a letter. A run after a number
may be a unit (`5 min`, `12 in`).
"""

import re

from sft_dist.grading import vocabulary

_GLUED = ("sqrt", "sin", "cos", "tan", "log", "ln", "pi")
_MAX_PRODUCT = 3  # letters; a longer run is a word
_PLAIN_ROOTS = {"sqrt": "usqrt", "cbrt": "ucbrt"}  # their argument is read as plain text means it
_SEPARATORS = re.compile(r"([,;]|\b(?:and|or)\b)", re.IGNORECASE)
_UNIT_WITH_POWER = re.compile(
    r"(?:[A-Za-z]{2,}|[mslghLNJWVAK])(?:\^\{?\d\}?)?(?:\s*/\s*[A-Za-z]+(?:\^\{?\d\}?)?)?"
)
_MATHEMATICS = re.compile(r"[\d=+^$\\]")

Pieces = list[tuple[str, str]]


def read_run(
    run: str, *, ends_number: bool = False, after_number: bool = False, before_brace: bool = False
) -> Pieces:
    """Return the kinds and texts of the tokens that a run of letters makes.

    `ends_number`: a number stands before the run, and nothing that the run could apply to after it.
    """
    name = vocabulary.ALIASES.get(run, run)
    if len(run) == 1:
        return [("letter", run)]
    if run == "in":
        return [("text" if after_number else "macro", "in")]
    if run in vocabulary.ALSO_UNITS and ends_number:
        return [("text", run)]
    if run in ("frac", "dfrac", "tfrac") and before_brace:
        return [("macro", "frac")]
    known = _known_name(name)
    if known is not None:
        return [("macro", known)]
    pieces = None if run in vocabulary.SHORT_WORDS else _split_run(run)
    return [("text", run)] if pieces is None else pieces


def _known_name(name: str) -> str | None:
    if name in vocabulary.PLAIN_CONSTANTS:
        return vocabulary.PLAIN_CONSTANTS[name]
    if name.lower() in ("infinity", "sqrt"):
        return {"infinity": "infty", "sqrt": "usqrt"}[name.lower()]
    if name in vocabulary.FUNCTIONS or name in vocabulary.GREEK:
        return _PLAIN_ROOTS.get(name, name)
    return None


def _split_run(run: str) -> Pieces | None:
    """Split into letters and at most one known name; None for a word."""
    for name in _GLUED:
        rest = run.removeprefix(name)
        if rest != run and len(rest) == 1:
            return [*read_run(name), ("letter", rest)]
        rest = run.removesuffix(name)
        if rest != run and len(rest) <= (2 if name in ("sqrt", "pi") else 1):
            return [*(("letter", letter) for letter in rest), *read_run(name)]
    if len(run) > _MAX_PRODUCT or not run.isascii():
        return None
    return [("letter", letter) for letter in run]


def read_text(content: str, *, upright: bool) -> Pieces:
    """Return the tokens of a text macro; a piece of the kind `mathematics` is still to be read.

    Commas, `and`, `or` separate items as they do outside. `upright`: the macro is one that sets the
    names of functions, so `min` is one and not a unit.
    """
    words = content.replace("~", " ").replace("\\ ", " ").replace("\\,", " ").strip()
    name = vocabulary.ALIASES.get(words, words)
    if name in vocabulary.FUNCTIONS and (upright or name not in vocabulary.ALSO_UNITS):
        return [("macro", _PLAIN_ROOTS.get(name, name))]
    if words.lower() == "infinity":
        return [("macro", "infty")]
    if "^" in words and _UNIT_WITH_POWER.fullmatch(words):
        return [("text", words.replace("{", "").replace("}", ""))]
    if _MATHEMATICS.search(words) or (words and not any(char.isalnum() for char in words)):
        return [("mathematics", words)]
    parts = (part.strip() for part in _SEPARATORS.split(words))
    return [("op" if part in (",", ";") else "text", part) for part in parts if part]

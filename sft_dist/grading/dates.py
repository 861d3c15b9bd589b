"""Dates in words: `October 30`, `Oct. 30th`, `30 October`, with or without a year."""

import re

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september",
           "october", "november", "december")  # fmt: skip
_MONTH = r"(?P<month>[A-Za-z]{3,9})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s+(?P<year>\d{4}))?"
_DATES = (
    re.compile(rf"{_MONTH}\s+{_DAY}{_YEAR}"),
    re.compile(rf"(?:the\s+)?{_DAY}(?:\s+of)?\s+{_MONTH}{_YEAR}"),
)
_TEXT_MACRO = re.compile(r"\\(?:text|textbf|textrm|mbox|mathrm)\s*\{([^{}]*)\}")
_LONGEST = 60


def date_in_words(text: str) -> str | None:
    """Return a date in one spelling, None for what is no date."""
    if len(text) > _LONGEST:
        return None
    bare = " ".join(_TEXT_MACRO.sub(r"\1", text).replace("~", " ").split()).rstrip(".")
    for pattern in _DATES:
        match = pattern.fullmatch(bare)
        month = _month(match["month"]) if match else None
        if match and month and 1 <= int(match["day"]) <= 31:
            return " ".join(filter(None, (month, str(int(match["day"])), match["year"])))
    return None


def _month(name: str) -> str | None:
    """Return the month that a name or its beginning stands for."""
    name = name.lower()
    return next((month for month in _MONTHS if month.startswith(name)), None)

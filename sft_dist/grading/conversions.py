"""Units of one kind: 50 cents are half a dollar, 90 minutes an hour and a half.

Only factors that are exact by definition, and only within one system of units.
"""

from collections import Counter
from fractions import Fraction

from sft_dist.grading.tree import Node, number

_FACTORS: dict[str, dict[str, Fraction | int]] = {
    "length": {"mm": Fraction(1, 10), "cm": 1, "m": 100, "km": 100_000},
    "imperial length": {"in": 1, "ft": 12, "yd": 36, "mi": 63_360},
    "time": {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "week": 604_800},
    "mass": {"mg": Fraction(1, 1000), "g": 1, "kg": 1_000},
    "imperial mass": {"oz": 1, "lb": 16},
    "imperial volume": {"cup": 1, "pint": 2, "quart": 4, "gal": 16},
    "money": {"cent": 1, "dollar": 100},
}
_KINDS = {
    unit: (kind, Fraction(factor))
    for kind, factors in _FACTORS.items()
    for unit, factor in factors.items()
}
_COMPOSED = {"mph": "mi /h"}
_METRIC_VOLUMES = {
    "l": Fraction(1000),
    "ml": Fraction(1),
    "cc": Fraction(1),
}  # in cubic centimetres


def factor_between(first: str, second: str) -> Fraction | None:
    """Return how many of the second unit make the first; None if they are not of one kind."""
    if _dimension(first) is None or _dimension(first) != _dimension(second):
        return None
    return _size(first) / _size(second)


def total(parts: list[Node]) -> Node | None:
    """Return the sum of quantities as `5 feet 3 inches` in the unit of the last; None without."""
    if any(part.op != "unit" for part in parts):
        return None
    unit = parts[-1].value
    terms = []
    for part in parts:
        factor = factor_between(part.value, unit)
        if factor is None:
            return None
        terms.append(Node("mul", (number(factor), part.args[0])))
    return Node("unit", (Node("add", tuple(terms)),), unit)


def _parts(unit: str) -> list[tuple[str, int]]:
    """Return the units in `m /s^2` with their powers."""
    found = []
    for part in _COMPOSED.get(unit, unit).split():
        name, _, power = part.lstrip("/").partition("^")
        exponent = int(power) if power.isdigit() else 1
        found.append((name, -exponent if part.startswith("/") else exponent))
    return found


def _dimension(unit: str) -> Counter[str] | None:
    dimension: Counter[str] = Counter()
    for name, power in _parts(unit):
        if name in _METRIC_VOLUMES:
            dimension["length"] += 3 * power
        elif name in _KINDS:
            dimension[_KINDS[name][0]] += power
        else:
            return None
    return dimension


def _size(unit: str) -> Fraction:
    size = Fraction(1)
    for name, power in _parts(unit):
        factor = _METRIC_VOLUMES[name] if name in _METRIC_VOLUMES else _KINDS[name][1]
        size *= factor**power
    return size

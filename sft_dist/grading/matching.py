"""Compare two trees of answers, kind by kind."""

from collections import Counter
from itertools import pairwise

from sft_dist.grading import forms, intervals
from sft_dist.grading.limits import Budget
from sft_dist.grading.numerals import number_in_words
from sft_dist.grading.relations import same_equation, same_inequality
from sft_dist.grading.tree import Node, key, number
from sft_dist.grading.values import same_value

_STAGES = ("structural", "text", "integer", "rational", "numeric", "symbolic")
_NO_SOLUTION = {"no solution", "no solutions", "no real solution", "no real solutions", "empty set"}
_REAL_NUMBERS = Node("const", (), "mathbb R")
_ALL_REAL = {"all real numbers", "all reals", "real numbers", "the real numbers"}
_SYMMETRIC = {"perp", "parallel", "sim", "cong"}


class Matcher:
    """One comparison: the work left, and the dearest stage so far (`stage`)."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.stage = "structural"

    def same(self, left: Node, right: Node) -> bool:
        """True if the two mean the same.

        Raises:
            OverLimitError: It cannot be decided within the limits.
        """
        self._budget.spend(2)
        if key(left) == key(right):
            return True
        if "choice" in (left.op, right.op):
            return self._same_choice(left, right)
        if "rel" in (left.op, right.op):
            return self._same_relations(left, right)
        if (left.op == "text" and _is_empty_set(right)) or (
            right.op == "text" and _is_empty_set(left)
        ):
            return self._same_words(left, right)
        collected = self._same_collections(left, right)
        if collected is not None:
            return collected
        return self._same_single(left, right)

    def _same_single(self, left: Node, right: Node) -> bool:
        (left, left_unit), (right, right_unit) = forms.split_unit(left), forms.split_unit(right)
        if left_unit or right_unit:
            return self._same_quantities(left, left_unit, right, right_unit)
        left, right = forms.simplify_matrix(left), forms.simplify_matrix(right)
        if "text" in (left.op, right.op):
            return self._same_words(left, right)
        if forms.is_expression(left) and forms.is_expression(right):
            return self._same_values(left, right)
        for shape in (forms.as_vector, forms.as_matrix):
            first, second = shape(left) or left, shape(right) or right
            if (
                first.op == second.op
                and first.op in ("seq", "matrix")
                and (first.value == second.value)
            ):
                return self._all_same(first.args, second.args)
        if left.op == right.op and left.op not in ("const", "dots"):
            same_head = _head(left) == _head(right)
            if same_head and self._all_same(left.args, right.args):
                return True
        if "ratio" in (left.op, right.op):
            return self._same_ratio(left, right)
        return self._same_sets(left, right)

    def _all_same(self, left: tuple[Node, ...], right: tuple[Node, ...]) -> bool:
        return len(left) == len(right) > 0 and all(
            self.same(first, second) for first, second in zip(left, right, strict=True)
        )

    # Values, units, words

    def _same_values(self, left: Node, right: Node) -> bool:
        if "based" in (left.op, right.op):  # the base is part of such an answer
            return False
        equal, stage = same_value(left, right, budget=self._budget)
        self._note(stage)
        return equal

    def _note(self, stage: str) -> None:
        self.stage = max(self.stage, stage, key=_STAGES.index)

    def _same_quantities(
        self, left: Node, left_unit: str | None, right: Node, right_unit: str | None
    ) -> bool:
        """A unit on one side only is ignored; two units must be one."""
        if left_unit and right_unit and left_unit != right_unit:
            return False
        if {left_unit, right_unit} & {"a.m.", "p.m."}:
            left, right = _time_of_day(left), _time_of_day(right)
        return self.same(left, right)

    def _same_words(self, left: Node, right: Node) -> bool:
        self._note("text")
        if left.op != "text":
            left, right = right, left
        words = str(left.value)
        if right.op == "text":
            return _spelled(words) == _spelled(right.value)
        if _is_empty_set(right):
            return words in _NO_SOLUTION
        if words in _ALL_REAL:
            return right.op != "text" and self.same(_REAL_NUMBERS, right)
        letters = forms.letters_of(right)
        if letters is not None:
            return letters == words if len(letters) == 1 else letters.lower() == words
        value = number_in_words(words)
        return (
            value is not None
            and forms.is_expression(right)
            and self._same_values(number(value), right)
        )

    def _same_choice(self, left: Node, right: Node) -> bool:
        r"""`(C) 5` is choice C, whose value is 5."""
        if left.op != "choice":
            left, right = right, left
        if right.op == "choice":
            return left.value == right.value and self.same(left.args[0], right.args[0])
        if right.op in ("sym", "text"):
            self._note("text")
            return bool(left.value == right.value)
        return self.same(left.args[0], right)

    def _same_ratio(self, left: Node, right: Node) -> bool:
        """`3:4` and the fraction 3/4."""
        if left.op != "ratio":
            left, right = right, left
        if len(left.args) != 2 or right.op != "div" or not forms.is_expression(right):
            return False
        return self.same(Node("div", left.args), right)

    # Collections

    def _same_collections(self, left: Node, right: Node) -> bool | None:
        """Compare unordered collections; None if neither side is one."""
        first, second = forms.items_of(left), forms.items_of(right)
        if first is None and second is None:
            return None
        first = [left] if first is None else first
        second = [right] if second is None else second
        if not _joined_apart(left, right) and self._same_members(first, second, left, right):
            return True
        return self._same_sets(left, right)

    def _same_members(self, first: list[Node], second: list[Node], left: Node, right: Node) -> bool:
        first, first_names = _unlabelled(first)
        second, second_names = _unlabelled(second)
        if first_names and second_names:
            return self._same_unordered(_members(left), _members(right))
        names = first_names or second_names
        if names and len(set(names)) > 1:
            return self._same_assignments(first, second, names, left, right)
        return self._same_unordered(first, second)

    def _same_assignments(
        self, first: list[Node], second: list[Node], names: list[str], left: Node, right: Node
    ) -> bool:
        """`x = 1, y = 2` and `(1, 2)` or `1, 2`: in the order of the names."""
        for items, other in ((first, right), (second, left)):
            if other.op == "seq" and other.value == "()" and len(items) == len(names):
                ordered = [item for _, item in sorted(zip(names, items, strict=True), key=_name)]
                return self._all_same(tuple(ordered), other.args)
        return self._all_same(tuple(first), tuple(second))

    def _same_unordered(self, first: list[Node], second: list[Node]) -> bool:
        if len(first) != len(second):
            return False
        keys = Counter(key(item) for item in second)
        rest = []
        for item in first:  # the same spelling is the common case, and cheap
            if keys[key(item)]:
                keys[key(item)] -= 1
            else:
                rest.append(item)
        left_over = [item for item in second if _take(keys, key(item))]
        for item in rest:
            index = next((i for i, other in enumerate(left_over) if self.same(item, other)), None)
            if index is None:
                return False
            del left_over[index]
        return True

    def _same_sets(self, left: Node, right: Node) -> bool:
        """Compare as sets of real numbers, if both are such and one is more than a list."""
        if not {left.op, right.op} & {
            "rel",
            "list",
            "union",
            "inter",
            "minus",
            "builder",
            "const",
            "add",
        }:
            return False
        try:
            first_letter, first = intervals.as_intervals(left, self._budget)
            second_letter, second = intervals.as_intervals(right, self._budget)
        except intervals.NotASetError:
            return False
        if first_letter and second_letter and first_letter != second_letter:
            return False
        return intervals.same_intervals(first, second, budget=self._budget)

    # Relations

    def _same_relations(self, left: Node, right: Node) -> bool:
        first, second = forms.strip_label(left), forms.strip_label(right)
        if left.op == right.op == "rel":
            if first and second:
                same_label = _compatible(first[0], second[0])
                if same_label:
                    return self._same_claims(first[1], second[1])
            return self._same_statements(left, right)
        if first and self._same_claims(first[1], [right]):
            return True
        if second and self._same_claims([left], second[1]):
            return True
        return self._same_sets(left, right)

    def _same_claims(self, first: list[Node], second: list[Node]) -> bool:
        """Each list claims one value; a false claim (`2 + 3 = 6`) equals nothing."""
        for claims in (first, second):
            if any(not self.same(one, other) for one, other in pairwise(claims)):
                return False
        return any(self.same(one, other) for one in first for other in second)

    def _same_statements(self, left: Node, right: Node) -> bool:
        if len(left.value) == len(right.value) == 1 and self._same_two_sided(left, right):
            return True
        if left.value == right.value and self._all_same(left.args, right.args):
            return True
        flipped = intervals.flipped(right)
        if flipped and left.value == flipped.value and self._all_same(left.args, flipped.args):
            return True
        return self._same_sets(left, right)

    def _same_two_sided(self, left: Node, right: Node) -> bool:
        if not all(forms.is_expression(side) for side in (*left.args, *right.args)):
            return False
        (first,), (second,) = left.value, right.value
        if first == second == "=":
            self._note("symbolic")
            return same_equation(left.args, right.args, budget=self._budget)
        if first in intervals.FLIPPED and second in intervals.FLIPPED:
            self._note("symbolic")
            return same_inequality(left, right, budget=self._budget)
        return first == second in _SYMMETRIC and self._all_same(left.args, right.args[::-1])


def _take(counts: Counter[str], name: str) -> bool:
    counts[name] -= 1
    return counts[name] >= 0


def _joined_apart(left: Node, right: Node) -> bool:
    """`x > 1 and x < 2` is not `x > 1 or x < 2`, though the parts are the same."""
    if left.op != "list" or right.op != "list" or left.value == right.value:
        return False
    return any(
        arg.op == "rel" and not set(arg.value) <= {"=", "approx"} for arg in left.args + right.args
    )


def _is_empty_set(node: Node) -> bool:
    return node.op == "set" and not node.args


def _head(node: Node) -> object:
    return node.value if node.op != "seq" or node.value != "<>" else "()"


def _spelled(words: str) -> str:
    return words.replace("-", " ").removeprefix("the ").strip()


def _time_of_day(node: Node) -> Node:
    """`3 p.m.` is `3:00 p.m.`."""
    return Node("ratio", (node, number(0))) if node.op == "num" else node


def _name(pair: tuple[str, Node]) -> str:
    return pair[0]


def _members(node: Node) -> list[Node]:
    return forms.items_of(node) or [node]


def _compatible(left: Node | None, right: Node | None) -> bool:
    """Two labels may name one thing: the same letter, or `y` and a function of x."""
    if left is None or right is None or key(left) == key(right) or "text" in (left.op, right.op):
        return True
    ops = {left.op, right.op}
    if ops == {"sym", "call"}:
        letter, call = (left, right) if left.op == "sym" else (right, left)
        return letter.value == call.value or (letter.value == "y" and call.value.isalpha())
    return forms.same_label_base(left, right)


def _unlabelled(items: list[Node]) -> tuple[list[Node], list[str]]:
    """Take labels off the members; return their names, one for each member that is labelled."""
    values: list[Node] = []
    names: list[str] = []
    for item in items:
        stripped = forms.strip_label(item)
        if stripped is None or stripped[0] is None or len(stripped[1]) != 1:
            values.append(item)
            continue
        name = key(stripped[0])
        names.append(name.split("_")[0])
        values.extend(forms.expand_signs(stripped[1][0]))
    return values, names

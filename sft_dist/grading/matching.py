"""Compare two trees of answers, kind by kind."""

from operator import itemgetter

from sft_dist.grading import forms, intervals, labels, units
from sft_dist.grading.conversions import factor_between, total
from sft_dist.grading.interval_sets import NotASetError, same_intervals
from sft_dist.grading.limits import Budget
from sft_dist.grading.pairing import same_unordered
from sft_dist.grading.relations import same_equation, same_inequality
from sft_dist.grading.tree import Node, key, number
from sft_dist.grading.values import same_value
from sft_dist.grading.vectors import as_matrix, as_vector, other_point, simplify_matrix
from sft_dist.grading.wording import meaning

_STAGES = ("structural", "text", "integer", "rational", "numeric", "symbolic")
_SETS = frozenset(["rel", "list", "union", "inter", "minus", "builder", "const", "add"])
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
        if (left.op == "text" and forms.is_empty_set(right)) or (
            right.op == "text" and forms.is_empty_set(left)
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
        if other_point(left, right):
            return False
        left, right = simplify_matrix(left), simplify_matrix(right)
        if "text" in (left.op, right.op):
            return self._same_words(left, right)
        if forms.is_expression(left) and forms.is_expression(right):
            return self._same_values(left, right)
        return self._same_shapes(left, right)

    def _same_shapes(self, left: Node, right: Node) -> bool:
        """Compare what has parts: tuples, matrices, unions, products of bold letters."""
        for shape in (as_vector, as_matrix):
            first, second = shape(left) or left, shape(right) or right
            if (
                first.op == second.op
                and first.op in ("seq", "matrix")
                and (first.value == second.value)
            ):
                return self._all_same(first.args, second.args)
        if {left.op, right.op} == {"mul", "ordered"}:  # plain letters for bold ones
            return self._all_same(left.args, right.args)
        if left.op == right.op and self._same_parts(left, right):
            return True
        if "ratio" in (left.op, right.op):
            return self._same_ratio(left, right)
        return self._same_sets(left, right)

    def _same_parts(self, left: Node, right: Node) -> bool:
        """Compare two trees of one operation part by part."""
        if left.op in ("union", "inter"):
            return self._same_unordered(forms.flat_args(left), forms.flat_args(right))
        if left.op in ("const", "dots") or forms.head(left) != forms.head(right):
            return False
        return self._all_same(left.args, right.args)

    def _all_same(self, left: tuple[Node, ...], right: tuple[Node, ...]) -> bool:
        return len(left) == len(right) > 0 and all(
            self.same(first, second) for first, second in zip(left, right, strict=True)
        )

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
        if left_unit and right_unit and not units.compatible(left_unit, right_unit):
            return self._same_converted(left, left_unit, right, right_unit)
        if {left_unit, right_unit} & {"a.m.", "p.m."}:
            left, right = forms.time_of_day(left), forms.time_of_day(right)
        return self.same(left, right)

    def _same_converted(self, left: Node, left_unit: str, right: Node, right_unit: str) -> bool:
        factor = factor_between(left_unit, right_unit)
        if factor is None or not (forms.is_expression(left) and forms.is_expression(right)):
            return False
        return self._same_values(Node("mul", (number(factor), left)), right)

    def _same_words(self, left: Node, right: Node) -> bool:
        self._note("text")
        if left.op != "text":
            left, right = right, left
        meant = meaning(str(left.value), right)
        return meant if isinstance(meant, bool) else self.same(meant, right)

    def _same_choice(self, left: Node, right: Node) -> bool:
        r"""`(C) 5` is choice C, whose value is 5."""
        if left.op != "choice":
            left, right = right, left
        if right.op == "choice":
            return left.value == right.value and self.same(left.args[0], right.args[0])
        if right.op in ("sym", "text") and left.value == right.value:
            self._note("text")
            return True
        return self.same(left.args[0], right)

    def _same_ratio(self, left: Node, right: Node) -> bool:
        """`3:4` and the fraction 3/4."""
        if left.op != "ratio":
            left, right = right, left
        if len(left.args) != 2 or right.op != "div" or not forms.is_expression(right):
            return False
        return self._all_same(left.args, right.args)

    # Collections

    def _same_collections(self, left: Node, right: Node) -> bool | None:
        """Compare unordered collections; None if neither side is one."""
        first, second = forms.items_of(left), forms.items_of(right)
        if first is None and second is None:
            return None
        if "compound" in (left.op, right.op):
            return self._same_compounds(left, right)
        first = [left] if first is None else first
        second = [right] if second is None else second
        if not forms.joined_apart(left, right) and self._same_members(first, second, left, right):
            return True
        return self._same_sets(left, right)

    def _same_compounds(self, left: Node, right: Node) -> bool:
        """`5 feet 3 inches`: the same parts, or the same total."""
        parts, others = forms.parts_of_compound(left), forms.parts_of_compound(right)
        if parts and others and self._same_unordered(parts, others):
            return True
        first = total(parts) if left.op == "compound" and parts else left
        second = total(others) if right.op == "compound" and others else right
        if first is None or second is None or not first.op == second.op == "unit":
            return False
        return self._same_single(first, second)

    def _same_members(self, first: list[Node], second: list[Node], left: Node, right: Node) -> bool:
        first, first_names = labels.without_labels(first)
        second, second_names = labels.without_labels(second)
        if first_names and second_names:
            return self._same_unordered(labels.named_members(left), labels.named_members(right))
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
                ordered = [
                    item for _, item in sorted(zip(names, items, strict=True), key=itemgetter(0))
                ]
                return self._all_same(tuple(ordered), other.args)
        return self._all_same(tuple(first), tuple(second))

    def _same_unordered(self, first: list[Node], second: list[Node]) -> bool:
        return same_unordered(first, second, self.same)

    def _same_sets(self, left: Node, right: Node) -> bool:
        """Compare as sets of real numbers, if both are such and one is more than a list."""
        if not {left.op, right.op} & _SETS:
            return False
        try:
            first_letter, first = intervals.as_intervals(left, self._budget)
            second_letter, second = intervals.as_intervals(right, self._budget)
        except NotASetError:
            return False
        if first_letter and second_letter and first_letter != second_letter:
            return False
        return same_intervals(first, second, budget=self._budget)

    # Relations

    def _same_relations(self, left: Node, right: Node) -> bool:
        first, second = labels.strip_label(left), labels.strip_label(right)
        if left.op == right.op == "rel":
            if first and second:
                same_label = labels.compatible_labels(first[0], second[0])
                if same_label:
                    return labels.same_claims(first[1], second[1], self.same)
            return self._same_statements(left, right)
        if first and labels.same_claims(first[1], [right], self.same):
            return True
        if second and labels.same_claims([left], second[1], self.same):
            return True
        return self._same_sets(left, right)

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

"""Properties over random answers: rewriting keeps the verdict, changing the value changes it."""

import contextlib
import random
import string
from fractions import Fraction

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from sft_dist.grading import grade
from sft_dist.grading.equivalence import compare_answers
from sft_dist.grading.limits import OverLimitError, UnreadableError
from sft_dist.grading.statements import read_answer
from sft_dist.grading.tree import key

COMMON = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
LETTERS = "xyab"
POINTS = [
    dict(zip(LETTERS, map(Fraction, values), strict=True))
    for values in ((2, 3, 5, 7), (-3, 4, -7, 11), ("1/2", "-5/3", "9/4", "2/7"))
]

# An expression is a nested tuple: ("n", 3), ("v", "x"), ("+", a, b), ("*", a, b), ("^", a, 2) ...
leaves = st.one_of(
    st.integers(0, 12).map(lambda number: ("n", number)),
    st.sampled_from(LETTERS).map(lambda letter: ("v", letter)),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "/"]), inner, inner),
        st.tuples(st.just("^"), inner, st.integers(2, 3)),
        st.tuples(st.just("neg"), inner),
    ),
    max_leaves=8,
)


def value(tree, point):
    """Evaluate independently of the package; None where there is no value."""
    op = tree[0]
    if op == "n":
        return Fraction(tree[1])
    if op == "v":
        return point[tree[1]]
    parts = [value(part, point) for part in tree[1:] if isinstance(part, tuple)]
    if None in parts or (op == "/" and parts[1] == 0):
        return None
    match op:
        case "+":
            return parts[0] + parts[1]
        case "-":
            return parts[0] - parts[1]
        case "*":
            return parts[0] * parts[1]
        case "/":
            return parts[0] / parts[1]
        case "^":
            return parts[0] ** tree[2]
    return -parts[0]


def latex(tree, rng):
    """Write the tree in one of the many ways LaTeX and plain text allow."""
    op = tree[0]
    if op in "nv":
        return str(tree[1])
    first = latex(tree[1], rng)
    left, right = rng.choice([("(", ")"), (r"\left(", r"\right)"), ("( ", " )"), ("{(", ")}")])
    wrapped = f"{left}{first}{right}"
    if op == "^":
        return wrapped + rng.choice([f"^{tree[2]}", f"^{{{tree[2]}}}"])
    if op == "neg":
        return f"-{wrapped}"
    second = latex(tree[2], rng)
    if op == "/":
        return rng.choice(
            [rf"\frac{{{first}}}{{{second}}}", rf"\dfrac{{ {first} }}{{{second}}}",
             f"{wrapped}/({second})"]
        )  # fmt: skip
    sign = {"*": rng.choice([r" \cdot ", r"\times ", "*", ""])}.get(op, op)
    return f"{wrapped}{sign}({second})"


def rewrite(tree, rng):
    """Return another tree of the same value."""
    if tree[0] in "nv":
        return tree
    parts = [rewrite(part, rng) if isinstance(part, tuple) else part for part in tree[1:]]
    op = tree[0]
    change = rng.random() < 0.6
    if op in "+*" and change:
        return (op, parts[1], parts[0])
    if op == "-" and change:
        return rng.choice([("+", parts[0], ("neg", parts[1])), ("neg", ("-", parts[1], parts[0]))])
    if op == "^" and parts[1] == 2 and change:
        return ("*", parts[0], parts[0])
    if op == "neg" and change:
        return ("*", ("n", -1), parts[0])
    if op == "/" and change:
        return ("*", parts[0], ("/", ("n", 1), parts[1]))
    if op == "*" and parts[1][0] == "+":
        return ("+", ("*", parts[0], parts[1][1]), ("*", parts[0], parts[1][2]))
    return (op, *parts)


def verdict(answer, gold):
    return grade(rf"\boxed{{{answer}}}", gold).verdict


@COMMON
@given(expressions, st.integers(0, 10**9))
def test_another_way_to_write_the_same_expression_is_accepted(tree, seed):
    assume(all(value(tree, point) is not None for point in POINTS))
    rng = random.Random(seed)
    gold, answer = latex(tree, rng), latex(rewrite(tree, rng), rng)
    assert verdict(answer, gold) == "correct", (answer, gold)


@COMMON
@given(expressions, expressions, st.integers(0, 10**9))
def test_an_expression_with_another_value_is_refused(tree, other, seed):
    values = [(value(tree, point), value(other, point)) for point in POINTS]
    assume(all(None not in pair for pair in values))
    assume(any(first != second for first, second in values))
    rng = random.Random(seed)
    answer, gold = latex(other, rng), latex(tree, rng)
    assert verdict(answer, gold) != "correct", (answer, gold)


@COMMON
@given(expressions, st.integers(0, 10**9))
def test_a_small_change_of_the_value_is_refused(tree, seed):
    assume(all(value(tree, point) is not None for point in POINTS))
    rng = random.Random(seed)
    gold = latex(tree, rng)
    for changed in (("+", tree, ("n", 1)), ("+", ("*", ("n", 10**12), tree), ("n", 1))):
        if any(value(changed, point) != value(tree, point) for point in POINTS):
            assert verdict(latex(changed, rng), gold) != "correct"


@COMMON
@given(expressions, expressions, st.integers(0, 10**9))
def test_equality_is_symmetric(tree, other, seed):
    rng = random.Random(seed)
    first, second = latex(tree, rng), latex(rng.choice([other, rewrite(tree, rng)]), rng)
    forth, back = compare_answers(first, second), compare_answers(second, first)
    assert forth.verdict == back.verdict


@COMMON
@given(expressions, st.integers(0, 10**9))
def test_reading_gives_one_normal_form(tree, seed):
    rng = random.Random(seed)
    text = latex(tree, rng)
    first = key(read_answer(text))
    assert first == key(read_answer(f" {text} ")) == key(read_answer(f"{{{text}}}"))


@COMMON
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=6), st.integers(0, 10**9))
def test_lists_ignore_the_order_and_tuples_do_not(numbers, seed):
    shuffled = list(numbers)
    random.Random(seed).shuffle(shuffled)
    text, other = ", ".join(map(str, numbers)), ", ".join(map(str, shuffled))
    assert verdict(other, text) == "correct"
    assert verdict(rf"\{{{other}\}}", text) == "correct"
    assert (verdict(f"({other})", f"({text})") == "correct") == (shuffled == numbers)
    assert verdict(f"{other}, 51", text) == "wrong"


@COMMON
@given(st.integers(-(10**40), 10**40), st.integers(-3, 3))
def test_whole_numbers_are_compared_exactly(number, change):
    expected = "correct" if change == 0 else "wrong"
    assert verdict(f"{number:,}", str(number + change)) == expected
    assert verdict(f"{number + change} + 0", str(number)) == expected


@COMMON
@given(st.fractions(max_denominator=400), st.fractions(max_denominator=400))
def test_fractions_are_compared_exactly(first, second):
    gold = rf"\frac{{{second.numerator}}}{{{second.denominator}}}"
    answer = f"{3 * first.numerator}/{3 * first.denominator}"
    assert verdict(answer, gold) == ("correct" if first == second else "wrong")
    same = f"{3 * second.numerator}/{3 * second.denominator}"
    assert verdict(same, gold) == "correct"


@COMMON
@given(
    st.integers(-9, 9), st.integers(1, 9), st.booleans(), st.booleans(), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_intervals_and_inequalities_agree_on_their_end_points(low, length, a, b, c, d):
    high = low + length
    interval = f"{'[' if a else '('}{low}, {high}{']' if b else ')'}"
    first, second = ("\\le" if closed else "<" for closed in (c, d))
    chain = f"{low} {first} x {second} {high}"
    assert (verdict(chain, interval) == "correct") == ((a, b) == (c, d))


PIECES = [
    *string.digits, *"+-*/^_{}()[]|!<>=,;:'&.% ~$\\xyaeiU", "\\frac", "\\sqrt", "\\text{",
    "\\left", "\\right", "\\{", "\\}", "\\pm", "\\cup", "\\in", "\\sum_{", "\\binom", "\\log",
    "\\sin", "\\pi", "\\infty", "^\\circ", "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", " and ",
    " or ", "10^{", "99999", "!!", "\\overline{", "\\mathbb{R}", "\\boxed{", "e^{", "\\le",
    "\\ne", "\\cdot", " cm", "π", "√", "²", "½", "×", "−", "°", "∞", "∪", "\x00", "\ud800", "é",
    "中", "\\pmod{", "\\choose",
]  # fmt: skip


@settings(COMMON, max_examples=800)
@given(
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
    st.sampled_from(["5", "x^2", "(1,2]", r"\{1,2\}", r"\text{red}", "x=2", r"\pm\sqrt2", "1_2"]),
)
@example("\\", "5")
@example("0.\\overline{}", "0")
@example("\\left", "5")
def test_no_text_makes_the_grader_raise(text, gold):
    first = grade(rf"\boxed{{{text}}}", gold)
    assert first.verdict in ("correct", "wrong", "no_answer", "unparseable", "timeout")
    forth, back = compare_answers(text, gold), compare_answers(gold, text)
    assert forth.verdict == back.verdict


@settings(COMMON, max_examples=300)
@given(st.text(max_size=60))
def test_no_unicode_text_makes_the_grader_raise(text):
    grade(rf"\boxed{{{text}}}", "5")
    grade(text, text, form="r1_zero")
    with contextlib.suppress(UnreadableError, OverLimitError):
        read_answer(text)

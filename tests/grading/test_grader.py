"""One grade: verdict, stage, and what importing and grading may not do."""

import subprocess
import sys
import threading

import pytest

from sft_dist.grading import GRADER_VERSION, grade


@pytest.mark.parametrize(
    ("answer", "gold", "verdict", "stage"),
    [
        ("5", "5", "correct", "identical"),
        ("1,000", "1000", "correct", "integer"),
        ("6", "5", "wrong", "integer"),
        (r"\dfrac12", r"\frac{1}{2}", "correct", "structural"),
        ("0.5", r"\frac{1}{2}", "correct", "rational"),
        (r"\sqrt{8}", r"2\sqrt{2}", "correct", "numeric"),
        ("(x+1)^2", "x^2+2x+1", "correct", "symbolic"),
        (r"\text{four}", r"\text{Four}", "correct", "structural"),
        (r"\text{four}", r"\text{five}", "wrong", "text"),
        (r"\foo", "5", "unparseable", "parse"),
        ("1+" * 3000 + "1", "5", "unparseable", "limit"),
        (r"9^{9^{9^9}}", "5", "timeout", "limit"),
    ],
)
def test_a_grade_says_what_was_decided_and_where(answer, gold, verdict, stage):
    found = grade(rf"\boxed{{{answer}}}", gold)
    assert (found.verdict, found.stage) == (verdict, stage)
    assert found.format_ok
    assert found.extracted == answer


def test_no_box_and_an_empty_box_differ_in_the_format_only():
    missing, empty = grade("5", "5"), grade(r"\boxed{}", "5")
    assert (missing.verdict, missing.format_ok, missing.extracted) == ("no_answer", False, None)
    assert (empty.verdict, empty.format_ok, empty.extracted) == ("no_answer", True, "")


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="r1_zero"):
        grade("5", "5", form="prose")


def test_importing_the_room_loads_nothing_heavy():
    code = (
        "import sys, sft_dist.grading\n"
        "print([name for name in ('torch', 'sympy', 'mpmath', 'transformers') "
        "if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_threads_reach_the_verdicts_of_the_main_thread():
    pairs = [
        (r"\boxed{\frac{\sqrt2}{2}}", r"\frac{1}{\sqrt2}"),
        (r"\boxed{\sin x}", r"\cos x"),
        (r"\boxed{" + "(" * 29 + "1" + ")" * 29 + "}", "1"),
        (r"\boxed{" + "+".join(["x"] * 600) + "}", "600x"),
    ] * 3
    expected = [grade(*pair) for pair in pairs]
    found = {}

    def work(name):
        found[name] = [grade(*pair) for pair in pairs]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[name] == expected for name in range(4))


def test_the_precision_of_the_callers_mpmath_is_left_alone():
    import mpmath

    before = mpmath.mp.dps
    grade(r"\boxed{\sqrt{8}}", r"2\sqrt{2}")
    assert mpmath.mp.dps == before


def test_an_answer_is_never_run_as_code(tmp_path):
    target = tmp_path / "written"
    for answer in (
        f"__import__('pathlib').Path('{target}').touch()",
        f"open('{target}', 'w')",
        f"exec(\"open('{target}', 'w')\")",
        f"[c for c in ().__class__.__base__.__subclasses__()][0]('{target}')",
    ):
        assert grade(rf"\boxed{{{answer}}}", "5").verdict != "correct"
        assert grade(rf"\boxed{{{answer}}}", answer + "+0").verdict != "timeout"
    assert not target.exists()


def test_the_version_is_stated():
    assert GRADER_VERSION.count(".") == 2

"""Which text of a response is its answer."""

import time

import pytest

from sft_dist.grading import extract_answer_tag, extract_boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"a \boxed{5} b", "5"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{ open \boxed{2}", "2"),
        (r"\boxed{}", ""),
        (r"\fbox{3}", "3"),
        (r"\boxed {x}", "x"),
        (r"$\boxed 5$ and", "5"),
        (r"$\boxed5$", "5"),
        (r"\boxed 12 is", "12"),
        (r"$\boxed \frac12$", r"\frac12"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{2, \boxed{7}}", r"2, \boxed{7}"),
        (r"} \boxed{4} {", "4"),
        ("\\boxed\n{4}", "4"),
        ("\\\\boxed{4}", "4"),
    ],
)
def test_the_last_complete_box_is_found(text, expected):
    assert extract_boxed(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "5", r"\boxed", r"\boxed{5", r"\boxed{5\}", r"\boxedx{5}", "boxed{5}", r"\boxed{{5}"],
)
def test_without_a_complete_box_there_is_none(text):
    assert extract_boxed(text) is None


@pytest.mark.parametrize(
    ("text", "tolerant", "strict"),
    [
        ("a</think> <answer>5</answer>", "5", "5"),
        ("a</think>\n<answer>5</answer>", "5", None),
        ("a</think><answer>5</answer>", "5", None),
        ("a</think> <answer>4</answer> <answer>5</answer>", "5", "5"),
        ("a</think> <answer>5</answer> tail", "5", "5 tail"),
        ("a</think> b <answer>5</answer>", None, None),
        ("a</think> <answer>5", None, None),
        ("<answer>5</answer>", None, None),
        ("5</answer></think> <answer>", None, ""),
    ],
)
def test_the_answer_tag_in_the_tolerant_and_in_the_strict_reading(text, tolerant, strict):
    assert extract_answer_tag(text) == tolerant
    assert extract_answer_tag(text, strict=True) == strict


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20_000,
        "\\boxed " * 20_000,
        "\\boxed{" * 20_000 + "}" * 20_000,
        "{" * 100_000 + "\\boxed{1}",
        "</think> <answer>" * 10_000,
        "\\" * 100_000,
        "\\boxed" * 20_000,
        "\\boxed{5}" + "\\" * 100_001,
    ],
)
def test_extraction_takes_time_linear_in_the_length(text):
    start = time.perf_counter()
    extract_boxed(text)
    extract_answer_tag(text)
    assert time.perf_counter() - start < 2.0

"""The labelled cases of cases.jsonl: every verdict as the reading rules ask for."""

import collections
import json
import time
from pathlib import Path

import pytest

from sft_dist.grading import extract_boxed, grade
from sft_dist.grading.equivalence import compare_answers

CASES = [
    json.loads(line)
    for line in Path(__file__).with_name("cases.jsonl").read_text(encoding="utf-8").splitlines()
]
CATEGORIES = sorted({case["category"] for case in CASES})


def verdict_of(case):
    return grade(case["response"], case["gold"], form=case.get("form", "boxed")).verdict


def matches(verdict, expected):
    return verdict != "correct" if expected == "not_correct" else verdict == expected


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_case_of_a_category_gets_its_verdict(category):
    failures = [
        (case["id"], case["response"][:80], case["gold"][:80], case["expected"], verdict)
        for case in CASES
        if case["category"] == category
        and not matches(verdict := verdict_of(case), case["expected"])
    ]
    assert failures == []


def test_there_are_enough_cases_of_both_kinds_and_each_is_documented():
    expected = collections.Counter(case["expected"] for case in CASES)
    assert len(CASES) >= 600
    assert expected["correct"] >= 250
    assert expected["wrong"] + expected["not_correct"] >= 250
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert all(case["reason"] and case["source"] for case in CASES)


def test_equality_does_not_depend_on_which_side_is_the_gold():
    asymmetric = []
    for case in CASES:
        answer = extract_boxed(case["response"])
        if case.get("form") or answer is None or not answer.strip():
            continue
        forth = compare_answers(answer, case["gold"]).verdict
        back = compare_answers(case["gold"], answer).verdict
        if (forth == "correct") != (back == "correct"):
            asymmetric.append((answer[:80], case["gold"], forth, back))
    assert asymmetric == []


def test_every_answer_equals_itself_in_another_layout():
    unequal = []
    for case in CASES:
        if case["category"] in ("hostile", "box", "tag") or "not_correct" in case["expected"]:
            continue
        answer = extract_boxed(case["response"])
        for variant in (f" {answer} ", f"{answer}\\,", f"\\displaystyle {answer}"):
            if compare_answers(variant, answer).verdict != "correct":
                unequal.append(variant)
    assert unequal == []


def test_hostile_cases_are_settled_quickly():
    compare_answers("\\pi", "3")  # the import of mpmath is paid once per process
    seconds = []
    for case in CASES:
        if case["category"] == "hostile":
            start = time.perf_counter()
            verdict_of(case)
            seconds.append(time.perf_counter() - start)
    seconds.sort()
    assert seconds[-1] < 2.0
    assert seconds[int(0.95 * len(seconds))] < 0.5

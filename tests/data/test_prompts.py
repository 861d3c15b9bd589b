"""Prompts and targets by name: exact texts, because scores depend on every character."""

import pytest

from sft_dist.config import DataConfig
from sft_dist.data.prompts import PROMPTS, build_prompt, build_target

AWKWARD = r"Let $S = \{1, 2\}$ and {problem} {0} {} %s $\frac{1}{2}$."


def test_the_default_prompt_is_exactly_this():
    assert build_prompt("default", "What is 1+1?") == (
        "Solve this math problem:\n\nWhat is 1+1?\n\nAnswer:"
    )


def test_the_default_target_is_one_space_and_the_solution():
    target = build_target("default", solution="It is \\boxed{2}.", answer="2")
    assert target == " It is \\boxed{2}."


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_braces_in_a_problem_or_a_solution_stay_as_they_are(name):
    assert AWKWARD in build_prompt(name, AWKWARD)
    assert AWKWARD in build_target(name, solution=AWKWARD, answer=r"\{1\}")


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_no_brace_of_a_template_is_left_over(name):
    prompt = build_prompt(name, "P")
    assert "{problem}" not in prompt
    assert "{{" not in prompt
    assert "}}" not in prompt


def test_the_prompts_of_the_command_line_are_those_that_exist():
    assert set(DataConfig.__annotations__["prompt"].__args__) == set(PROMPTS)


def test_question_only_asks_the_bare_problem():
    assert build_prompt("question_only", "What is 1+1?") == "What is 1+1?"


def test_r1_zero_ends_inside_the_thought_and_its_target_ends_with_the_answer():
    prompt = build_prompt("r1_zero", "What is 1+1?")
    assert prompt.endswith("User: What is 1+1?\nAssistant: <think>")
    assert build_target("r1_zero", solution="One and one.", answer="2") == (
        " One and one. </think> <answer> 2 </answer>"
    )


def test_r1_zero_without_an_answer_leaves_its_place_empty():
    assert "None" not in build_target("r1_zero", solution="s", answer=None)


def test_qwen_chat_is_the_template_of_the_model():
    assert build_prompt("qwen_chat", "What is 1+1?") == (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within "
        "\\boxed{}.<|im_end|>\n<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_prompt_and_target_meet_in_exactly_one_blank(name):
    joined = build_prompt(name, "P")[-1], build_target(name, solution="S", answer="1")[0]
    assert sum(character.isspace() for character in joined) == 1


def test_answers_are_graded_in_the_form_the_prompt_asks_for():
    assert {name: p.form for name, p in PROMPTS.items()} == {
        "default": "boxed", "question_only": "boxed", "qwen_chat": "boxed", "r1_zero": "r1_zero",
    }  # fmt: skip


def test_an_unknown_prompt_is_an_error():
    with pytest.raises(KeyError):
        build_prompt("no_such_prompt", "P")

"""The table of metric names, a contract with dashboards and readers."""

import pytest

from sft_dist.data.prompts import PROMPTS
from sft_dist.tracking.metrics import METRICS, is_declared

CONTRACT = [
    "train/loss", "train/learning_rate", "train/grad_norm", "train/grad_norm_preclip", "train/step",
    "eval/accuracy", "eval/avg_format_reward", "eval/avg_answer_reward", "eval/avg_token_entropy",
    "eval/avg_response_length", "eval/sample_generations", "eval/step",
]  # fmt: skip


@pytest.mark.parametrize("name", CONTRACT)
def test_the_names_of_the_contract_are_declared(name):
    assert is_declared(name)


@pytest.mark.parametrize("prompt", sorted(PROMPTS))
def test_another_prompts_metrics_carry_its_name(prompt):
    assert is_declared(f"eval/{prompt}/accuracy")


@pytest.mark.parametrize(
    "name",
    [
        "loss", "train/lr", "eval/accurracy", "eval/no_such_prompt/accuracy", "train/default/loss",
        "eval/default/loss", "eval/default", "eval/default/a/b", "step", "",
    ],
)  # fmt: skip
def test_other_names_are_not_declared(name):
    assert not is_declared(name)


def test_every_metric_has_a_unit_and_a_meaning():
    for name, metric in METRICS.items():
        assert metric.unit, name
        assert metric.meaning.endswith("."), name


def test_every_metric_belongs_to_an_axis_that_wandb_knows():
    from sft_dist.tracking.wandb_view import AXES

    for name in METRICS:
        assert name.split("/")[0] in AXES, name
    assert set(AXES.values()) <= set(METRICS)

"""What a step leaves in the record, from the sums of the global batch."""

import json
from dataclasses import replace

import pytest
import torch

from sft_dist import step_rows
from sft_dist.data.prefetch import StepBatch
from sft_dist.data.sampler import BatchPlan
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.engines.protocol import StepResult
from sft_dist.runtime.distributed import Ranks
from sft_dist.step_rows import StepRows, peak_flops_of
from sft_dist.tracking.metrics import METRICS
from sft_dist.train_state import TrainState

STATE = TrainState(
    step=3, seed=0, global_batch_size=2, num_examples=8, data_fingerprint="", wandb_run_id=""
)
RESULT = StepResult(
    loss_sum=12.0, objective_sum=9.0, entropy_sum=6.0, num_correct=3, grad_norm_preclip=5.0,
    applied=True,
)  # fmt: skip
RANKS = Ranks(0, 0, 2, torch.device("cpu"))


def batch():
    examples = [TokenizedExample(f"train/x/{n}", [1] * n, 2) for n in (30, 10)]
    return StepBatch(examples, [[[0]], [[1]]], [[30], [20]], [], 24, 3.0)


@pytest.fixture
def rows(configured, tmp_path):
    shape = {"model_type": "qwen2", "hidden_size": 8, "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(shape))

    def make(**flags):
        plan = BatchPlan(num_examples=8, global_batch_size=2, num_epochs=3, seed=0)
        return StepRows(
            configured(**flags), plan, model_dir=tmp_path, num_parameters=1000, ranks=RANKS
        )

    return make


def test_means_are_over_the_target_tokens_of_all_ranks(rows):
    row = rows().learning(STATE, RESULT, batch(), 1e-5)
    assert (row["step"], row["train/epoch"], row["train/learning_rate"]) == (3, 0.75, 1e-5)
    assert (row["train/examples"], row["train/target_tokens"]) == (2, 24)
    assert (row["train/loss"], row["train/objective"]) == (0.5, 3.0)
    assert (row["train/token_entropy"], row["train/token_accuracy"]) == (0.25, 0.125)


@pytest.mark.parametrize(("limit", "norm"), [(1.0, 1.0), (7.5, 5.0), (0.0, 5.0)])
def test_the_norm_is_what_was_applied_beside_what_was_found(rows, limit, norm):
    row = rows(max_grad_norm=limit).learning(STATE, RESULT, batch(), 1e-5)
    assert (row["train/grad_norm"], row["train/grad_norm_preclip"]) == (norm, 5.0)


def test_a_step_that_was_left_out_says_so_and_has_no_loss(rows):
    row = rows().learning(STATE, replace(RESULT, applied=False), batch(), 1e-5)
    assert row["train/skipped"] == 1
    assert not {"train/loss", "train/grad_norm"} & row.keys()


def test_the_use_of_a_peak_that_is_known_is_told(rows, monkeypatch):
    monkeypatch.setattr(step_rows, "peak_flops_of", lambda ranks: 1e6)
    found = rows().performance(batch(), seconds=2.0, waited=0.5)
    # 6 x 1000 parameters x 40 tokens, and 6 x 2 layers x 8 x (30^2 + 10^2) of attention.
    assert found["perf/mfu"] == pytest.approx((240_000 + 96_000) / 2.0 / 1e6)
    assert found["perf/tokens_per_second"] == 20.0
    assert found["perf/data_wait_seconds"] == 0.5
    assert found["perf/rank_imbalance"] == pytest.approx(30 * 2 / 50)
    assert found.keys() <= METRICS.keys()


def test_a_cpu_has_no_peak_and_a_gpu_that_of_all_ranks(rows, monkeypatch):
    assert "perf/mfu" not in rows().performance(batch(), seconds=2.0, waited=0.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    one, eight = (Ranks(0, 0, n, torch.device("cuda", 0)) for n in (1, 8))
    assert peak_flops_of(eight) == 8 * peak_flops_of(one) > 0
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert peak_flops_of(eight) is None

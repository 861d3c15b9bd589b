"""What a global batch's loss is divided by, in its three forms."""

import pytest
import torch

from sft_dist.functions import masked_normalize
from sft_dist.normalization import LossNormalization, engine_loss_scale

LOSSES = [torch.tensor([1.0, 2.0, 4.0]), torch.tensor([8.0])]


def value(normalization):
    total = sum(float(losses.sum()) * normalization.token_weight(len(losses)) for losses in LOSSES)
    return total / normalization.normalizer(num_examples=2, num_target_tokens=4)


def test_tokens_is_the_mean_over_all_tokens():
    assert value(LossNormalization()) == pytest.approx(15 / 4)


def test_sequences_is_the_mean_of_the_examples_means():
    assert value(LossNormalization("sequences")) == pytest.approx((7 / 3 + 8) / 2)


@pytest.mark.parametrize("constant", [1.0, 512.0])
def test_constant_is_the_form_of_cs336(constant):
    padded = torch.tensor([[1.0, 2.0, 4.0], [8.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    expected = masked_normalize(padded, mask, constant, dim=-1).mean()
    assert value(LossNormalization("constant", constant)) == pytest.approx(float(expected))


def test_the_scale_makes_sums_into_the_loss_of_the_global_batch():
    assert engine_loss_scale(normalizer=50) == 1 / 50


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 1), (8, 1), (4, 3)])
def test_the_scale_undoes_what_the_engine_averages_and_divides_by(ranks, accumulation):
    generator = torch.Generator().manual_seed(4)
    sums = torch.rand(ranks, accumulation, generator=generator)
    scale = engine_loss_scale(normalizer=50, averaged_over=ranks, divided_by=accumulation)
    engine = (sums * scale / accumulation).sum(1).mean()  # adds up micro-batches, averages ranks
    torch.testing.assert_close(engine, sums.sum() / 50)

"""Token losses in chunks: the numbers of plain cross-entropy, never the whole logits."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sft_dist import loss
from sft_dist.loss import LossHead, compute_entropy, token_log_probs

N, D, V = 23, 8, 50


def random_logits(scale=1.0, shape=(3, 7, V)):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def plain_head(bias=False):
    torch.manual_seed(1)
    return nn.Linear(D, V, bias=bias)


def inputs():
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(N, D, generator=generator)
    return hidden, torch.randint(0, V, (N,), generator=generator)


# compute_entropy, token_log_probs


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_entropy_is_that_of_torchs_categorical_distribution(scale):
    logits = random_logits(scale)
    expected = torch.distributions.Categorical(logits=logits.double()).entropy()
    assert compute_entropy(logits).shape == (3, 7)
    torch.testing.assert_close(compute_entropy(logits).double(), expected, atol=1e-5, rtol=1e-4)


def test_entropy_of_equal_logits_is_the_logarithm_of_their_number():
    assert compute_entropy(torch.full((2, V), 3.0)) == pytest.approx(math.log(V), abs=1e-5)


def test_entropy_and_log_probs_stay_finite_for_huge_logits():
    logits = random_logits() * 1e4 + 1e6
    labels = logits.argmin(-1)
    entropy, log_probs = compute_entropy(logits), token_log_probs(logits, labels)
    assert torch.isfinite(entropy).all()
    assert torch.isfinite(log_probs).all()
    assert (log_probs < -1000).all()


def test_a_certain_token_has_entropy_0_and_log_probability_0():
    logits = torch.full((1, V), -1e4)
    logits[0, 3] = 1e4
    assert compute_entropy(logits) == pytest.approx(0.0, abs=1e-6)
    assert token_log_probs(logits, torch.tensor([3])) == pytest.approx(0.0, abs=1e-6)


def test_adding_a_constant_to_the_logits_changes_neither():
    logits, labels = random_logits(), torch.zeros(3, 7, dtype=torch.long)
    for function in (compute_entropy, lambda x: token_log_probs(x, labels)):
        torch.testing.assert_close(function(logits + 50), function(logits), atol=1e-4, rtol=1e-4)


def test_log_probs_are_minus_torchs_cross_entropy():
    logits = random_logits(5.0)
    labels = torch.randint(0, V, (3, 7), generator=torch.Generator().manual_seed(3))
    expected = -cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    torch.testing.assert_close(token_log_probs(logits, labels), expected.view(3, 7))


def test_half_precision_logits_are_scored_in_float32():
    logits = random_logits().bfloat16()
    labels = torch.zeros(3, 7, dtype=torch.long)
    assert compute_entropy(logits).dtype == torch.float32
    torch.testing.assert_close(compute_entropy(logits), compute_entropy(logits.float()))
    torch.testing.assert_close(
        token_log_probs(logits, labels), token_log_probs(logits.float(), labels)
    )


# LossHead


@pytest.mark.parametrize("elements", [1, V, 5 * V, 5 * V + 3, N * V, 2**26])
@pytest.mark.parametrize("block", [V, 3 * V + 1, 2**26])
@pytest.mark.parametrize("head_rows", [7, 4096])
@pytest.mark.parametrize("bias", [False, True])
def test_chunks_give_the_loss_and_the_gradients_of_plain_cross_entropy(
    monkeypatch, elements, block, bias, head_rows
):
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(loss, "CPU_BLOCK_ELEMENTS", block)
    monkeypatch.setattr(loss, "CPU_HEAD_ROWS", head_rows)
    plain = plain_head(bias)
    hidden, targets = inputs()
    expected_hidden = hidden.clone().requires_grad_()
    weights = torch.linspace(0.5, 2.0, N)  # so that no token may take another's place
    expected = cross_entropy(plain(expected_hidden), targets, reduction="none")
    (3 * (expected * weights).sum()).backward()
    expected_gradients = [p.grad.clone() for p in plain.parameters()]
    plain.zero_grad()

    head = LossHead.sharing(plain)
    own_hidden = hidden.clone().requires_grad_()
    scores = head(own_hidden, targets, weights)
    (scores.loss * 3).backward()  # an engine scales the loss

    assert scores.log_probs.shape == (N,)
    torch.testing.assert_close(scores.loss, (expected * weights).sum(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(-scores.log_probs, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(own_hidden.grad, expected_hidden.grad, atol=1e-6, rtol=1e-5)
    for parameter, gradient in zip(plain.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-5)


def test_entropy_and_correct_tokens_are_counted_without_a_gradient(monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 4 * V)
    plain = plain_head()
    hidden, targets = inputs()
    logits = plain(hidden)
    targets[:10] = logits.argmax(-1)[:10]
    scores = LossHead.sharing(plain)(hidden, targets)
    torch.testing.assert_close(scores.entropy, compute_entropy(logits))
    assert torch.equal(scores.correct, (logits.argmax(-1) == targets).float())
    assert scores.correct.sum() >= 10
    assert scores.loss.requires_grad
    assert not scores.log_probs.requires_grad
    assert not scores.entropy.requires_grad
    assert not scores.correct.requires_grad


@pytest.mark.parametrize("rows", [1, 4])
def test_no_more_logits_than_allowed_exist_at_a_time(monkeypatch, rows):
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", rows * V)
    seen, score = [], loss._score

    def recording(logits, *rest):
        seen.append(len(logits))
        return score(logits, *rest)

    monkeypatch.setattr(loss, "_score", recording)
    hidden, targets = inputs()
    LossHead.sharing(plain_head())(hidden.requires_grad_(), targets).loss.backward()
    assert max(seen) == rows
    assert sum(seen) == N  # projected once, backward pass included


def test_without_gradients_none_is_computed(monkeypatch):
    def refuse(*_):
        raise AssertionError("a gradient nobody asked for")

    hidden, targets = inputs()
    head = LossHead.sharing(plain_head())
    expected = head(hidden, targets).log_probs
    monkeypatch.setattr(loss, "_HeadGradients", refuse)
    with torch.no_grad():
        assert torch.equal(head(hidden, targets).log_probs, expected)


def test_a_second_backward_pass_is_refused_not_wrong():
    hidden, targets = inputs()
    total = LossHead.sharing(plain_head())(hidden.requires_grad_(), targets).loss
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        total.backward()


def test_in_bf16_the_weights_gradient_is_added_up_in_float32(monkeypatch):
    """One chunk or many: what differs is the rounding of the result, not of a running sum."""
    plain = plain_head().bfloat16()
    hidden = torch.randn(2000, D, generator=torch.Generator().manual_seed(5)).bfloat16()
    targets = torch.randint(0, V, (2000,), generator=torch.Generator().manual_seed(6))
    exact = plain_head().double()
    exact.weight.data.copy_(plain.weight.data)
    cross_entropy(exact(hidden.double()), targets, reduction="sum").backward()
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 4 * V)  # 500 chunks
    monkeypatch.setattr(loss, "CPU_HEAD_ROWS", 7)
    head = LossHead.sharing(plain)
    head(hidden.clone().requires_grad_(), targets).loss.backward()
    error = (head.weight.grad.double() - exact.weight.grad).norm() / exact.weight.grad.norm()
    assert error < 0.005


def test_a_head_shares_its_parameters_and_is_the_layer_it_replaces():
    plain = plain_head(bias=True)
    head = LossHead.sharing(plain)
    hidden, _ = inputs()
    assert head.weight is plain.weight
    assert head.bias is plain.bias
    assert isinstance(head, nn.Linear)
    assert torch.equal(head(hidden), plain(hidden))
    assert list(head.state_dict()) == list(plain.state_dict())


def test_bf16_weights_give_float32_scores():
    hidden, targets = inputs()
    scores = LossHead.sharing(plain_head().bfloat16())(hidden.bfloat16(), targets)
    assert {part.dtype for part in scores} == {torch.float32}

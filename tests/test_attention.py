"""Attention that stays inside each example, by every back-end that runs here."""

import pytest
import torch

from sft_dist.attention import per_example_sdpa, resolve_attention
from sft_dist.data.packing import empty_micro_batch, pack, pad
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.loss import compute_entropy, token_log_probs
from sft_dist.model import TokenScorer
from tests.tiny import VOCAB, tiny_examples, tiny_model

ATTENTIONS = ["sdpa", "eager", "torch_varlen"]


@pytest.fixture(autouse=True)
def varlen_on_the_cpu(monkeypatch):
    """torch's kernel needs CUDA: its contract, written out. The real one runs in the GPU suite."""

    def varlen_attn(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
        assert window_size == (-1, 0)
        assert enable_gqa
        assert torch.equal(cu_q, cu_k)
        assert cu_q.dtype == torch.int32
        assert max_q == max_k == int(cu_q.diff().max())
        parts = zip(
            *(x.tensor_split(cu_q[1:-1].long(), 0) for x in (query, key, value)), strict=True
        )
        return torch.cat([
            torch.nn.functional.scaled_dot_product_attention(
                *(x.transpose(0, 1)[None] for x in part),
                is_causal=True, scale=scale, enable_gqa=True,
            )[0].transpose(0, 1)
            for part in parts
        ])  # fmt: skip

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)


def scores_alone(model, example):
    """Log-probabilities and entropies of one example by transformers' own forward."""
    ids = torch.from_numpy(example.input_ids)[None]
    logits = model(ids, use_cache=False).logits[0, example.prompt_length - 1 : -1]
    return token_log_probs(logits, ids[0, example.prompt_length :]), compute_entropy(logits)


def per_example(values, examples):
    return values.split([e.num_target_tokens for e in examples])


# Packed rows


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("join", [pack, pad])
def test_scores_are_those_of_each_example_alone(attention, join):
    examples = [*tiny_examples(9), *tiny_examples(2)]  # two of one length side by side
    reference = tiny_model("eager").eval()
    with torch.no_grad():
        packed = TokenScorer(tiny_model(attention))(join(sorted(examples, key=len)))
        expected = [scores_alone(reference, e) for e in sorted(examples, key=len)]
    torch.testing.assert_close(
        packed.log_probs, torch.cat([e[0] for e in expected]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        packed.entropy, torch.cat([e[1] for e in expected]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_tests_model_attends_to_earlier_tokens(attention):
    """Otherwise the tests of leaks could not fail."""
    (example,) = tiny_examples(1)
    changed = example.input_ids.copy()
    changed[0] = (changed[0] + 1) % VOCAB
    other = TokenizedExample(example.id, changed, example.prompt_length)
    scorer = TokenScorer(tiny_model(attention))
    with torch.no_grad():
        before, after = (scorer(pack([e])).log_probs for e in (example, other))
    assert (before - after).abs().min() > 1e-4


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("changed", [0, 2, 4])
def test_other_tokens_in_one_example_leave_the_others_the_same_to_the_bit(attention, changed):
    examples = tiny_examples(5)
    old = examples[changed]
    others = [i for i in range(5) if i != changed]
    replaced = list(examples)
    replaced[changed] = TokenizedExample(old.id, (old.input_ids + 1) % VOCAB, old.prompt_length)
    scorer = TokenScorer(tiny_model(attention))
    with torch.no_grad():
        before, after = (
            per_example(scorer(pack(batch)).log_probs, examples) for batch in (examples, replaced)
        )
    assert not torch.equal(before[changed], after[changed])
    for index in others:
        assert torch.equal(before[index], after[index])


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("join", [pack, pad])
def test_the_gradient_of_a_micro_batch_is_the_sum_of_those_of_its_examples(attention, join):
    examples = tiny_examples(5)
    packed, alone = tiny_model(attention), tiny_model("eager")
    TokenScorer(packed)(join(examples)).loss.backward()
    for example in examples:
        (-scores_alone(alone, example)[0].sum()).backward()
    expected = {name: p.grad for name, p in alone.named_parameters()}
    for name, parameter in packed.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_values_and_gradients_are_those_of_torchs_attention_for_each_example(dtype, kv_heads):
    lengths = (3, 5, 5, 5, 2)  # neighbours of one length are computed together
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, sum(lengths), 32) for heads in (4, kv_heads, kv_heads)]
    rows = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    mixed, _ = per_example_sdpa(torch.nn.Module(), *rows, None, example_lengths=lengths)
    expected = torch.cat(
        [
            torch.nn.functional.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True)
            for part in zip(*(row.split(lengths, 2) for row in rows), strict=True)
        ],
        dim=2,
    ).transpose(1, 2)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(mixed, expected, atol=tolerance, rtol=tolerance)
    gradient = torch.randn(mixed.shape, generator=generator).to(dtype)
    for mine, theirs in zip(
        torch.autograd.grad(mixed, rows, gradient),
        torch.autograd.grad(expected, rows, gradient),
        strict=True,
    ):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_stand_in_of_an_idle_rank_has_a_gradient_for_every_parameter(attention):
    model = tiny_model(attention)
    TokenScorer(model)(empty_micro_batch()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize(
    ("requested", "cuda", "flash", "expected"),
    [
        ("auto", True, True, "flash_attention_2"),
        ("auto", True, False, "torch_varlen"),
        ("auto", False, True, "sdpa"),
        ("auto", False, False, "sdpa"),
        ("eager", True, True, "eager"),
        ("flash_attention_2", False, False, "flash_attention_2"),
        ("sdpa", True, True, "sdpa"),
    ],
)
def test_auto_takes_flash_attention_where_it_can_run(requested, cuda, flash, expected):
    found, reason = resolve_attention(requested, cuda=cuda, flash_attn_installed=flash)
    assert found == expected
    assert reason


def test_the_reason_for_the_attention_says_what_is_missing():
    assert "flash-attn" in resolve_attention("auto", cuda=True, flash_attn_installed=False)[1]
    assert "CUDA" in resolve_attention("auto", cuda=False, flash_attn_installed=True)[1]

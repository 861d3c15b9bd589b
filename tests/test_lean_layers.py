"""Lean layers against transformers' own: values, gradients, and what they leave out."""

import copy

import pytest
import torch
from torch import nn

from sft_dist import lean_layers
from sft_dist.data.packing import micro_batches
from sft_dist.lean_layers import can_be_lean, make_lean
from sft_dist.model import TokenScorer
from tests.tiny import tiny_examples, tiny_model

TINY = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "attn_implementation": "eager", "initializer_range": 0.2,
}  # fmt: skip


def model_of(family):
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**TINY)
    return getattr(transformers, f"{family}ForCausalLM")(config).train()


def rows(*shape, dtype=torch.float32, seed=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype).requires_grad_()


def gradients(outcome, *inputs):
    """Of a sum that weighs each element otherwise."""
    weights = torch.linspace(-1, 1, outcome.numel()).view_as(outcome)
    return torch.autograd.grad((outcome.float() * weights).sum(), inputs)


def assert_near(found, expected):
    """To what float32 gives up: of a sum, that of its largest terms."""
    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("family", ["Qwen2", "Llama"])
def test_a_lean_model_is_the_model(family):
    plain = model_of(family)
    lean = copy.deepcopy(plain)
    assert make_lean(lean)
    ids = torch.randint(0, 128, (2, 40), generator=torch.Generator().manual_seed(1))
    hidden = [m.base_model(input_ids=ids, use_cache=False).last_hidden_state for m in (plain, lean)]
    torch.testing.assert_close(hidden[1], hidden[0])
    expected, found = (
        gradients(last, *model.base_model.parameters())
        for model, last in zip((plain, lean), hidden, strict=True)
    )
    for mine, other in zip(found, expected, strict=True):
        assert_near(mine, other)


def test_what_follows_the_last_attention_sees_target_tokens_alone():
    scorer = TokenScorer(tiny_model())
    (batch,) = micro_batches(tiny_examples(5), [[0, 1, 2, 3, 4]])
    seen = {}
    first, last = scorer.causal_lm.model.layers
    for name, layer in (("first", first), ("last", last)):
        layer.mlp.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.update({name: inputs[0].shape[:-1].numel()})
        )
    scorer(batch)
    assert seen == {"first": batch.input_ids.numel(), "last": batch.num_target_tokens}
    assert batch.num_target_tokens < batch.input_ids.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_is_transformers_norm(dtype):
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    norm = Qwen2RMSNorm(48)
    norm.weight.data = rows(48, seed=1).detach()
    exact = gradients(norm(wide := rows(3, 5, 48, dtype=dtype).float()), wide, norm.weight)
    norm.to(dtype)
    hidden = rows(3, 5, 48, dtype=dtype)
    expected, found = norm(hidden), lean_layers.norm_forward(norm, hidden)
    torch.testing.assert_close(found, expected)
    theirs = gradients(expected, hidden, norm.weight)
    ours = gradients(found, hidden, norm.weight)
    for mine, other, truth in zip(ours, theirs, exact, strict=True):
        error, usual = ((g.float() - truth).abs().max() for g in (mine, other))
        assert mine.dtype == dtype
        assert error <= max(1.1 * usual, 1e-5)  # roundings may fall a little worse in one element


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_of_a_gpu_is_that_norm(dtype):
    """torch's own, called as `norm_forward` does there; it rounds once less."""
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    norm = Qwen2RMSNorm(48).to(dtype)
    norm.weight.data = rows(48, dtype=dtype, seed=1).detach()
    hidden = rows(3, 5, 48, dtype=dtype)
    found = nn.functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)
    torch.testing.assert_close(found, norm(hidden))


def test_a_lean_model_refuses_a_cache():
    model = model_of("Qwen2")
    assert make_lean(model)
    with pytest.raises(ValueError, match="for training"):
        model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=2)


def test_norm_of_long_and_of_tiny_rows():
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    norm = Qwen2RMSNorm(48)
    for factor in (1e-6, 1e6):
        hidden = (rows(4, 48).detach() * factor).requires_grad_()
        expected, found = norm(hidden), lean_layers.norm_forward(norm, hidden)
        torch.testing.assert_close(found, expected)
        for mine, other in zip(gradients(found, hidden), gradients(expected, hidden), strict=True):
            assert_near(mine, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gate_is_exact_and_keeps_two_tensors(dtype):
    gate, up = rows(6, 32, dtype=dtype), rows(6, 32, dtype=dtype, seed=1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    ):
        found = lean_layers._SiluTimes.apply(gate, up)
    assert len(kept) == 2
    expected = nn.functional.silu(gate) * up
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for mine, other in zip(gradients(found, gate, up), gradients(expected, gate, up), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_rotation_is_transformers_rotation():
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    query, angles = rows(2, 3, 7, 16), rows(2, 1, 7, 8, seed=1).detach()
    cos, sin = (torch.cat((t, t), -1) for t in (angles.cos(), angles.sin()))
    expected, _ = apply_rotary_pos_emb(query, query, cos[:, 0], sin[:, 0])
    found = lean_layers._Rotation.apply(query, cos, sin)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, query), gradients(expected, query))


def test_other_architectures_and_compiled_layers_stay_as_they_are():
    other, compiled = model_of("Mistral"), model_of("Qwen2")
    compiled.model.layers[0].compile()
    assert not can_be_lean(other)
    assert can_be_lean(compiled)
    for model in (other, compiled):
        assert not make_lean(model)
        assert all("forward" not in vars(module) for module in model.modules())


def test_another_activation_is_not_taken_for_silu():
    model = model_of("Qwen2")
    model.config.hidden_act = "gelu"
    assert not make_lean(model)

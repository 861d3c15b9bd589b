"""The layers of a Qwen2 or Llama, computing and keeping no more than the loss needs.

Norm, rotation and gate have backward passes of their own, with fewer operations or fewer tensors
kept than autograd's. And where the loss looks at target tokens alone, what follows the last
layer's attention is computed for those alone. Parameters are those of transformers' layers (5.19,
models/qwen2 and models/llama), and so are values, to rounding.

The branches for CUDA are untested: no GPU has run them yet.

Shapes: `B` rows of `T` tokens, `N` of the `B * T` with a loss, `H` heads of size `d`, `D` hidden
size.
"""

from collections.abc import Callable
from importlib import import_module
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FAMILIES = ("Qwen2", "Llama")


def can_be_lean(causal_lm: Any) -> bool:
    """Whether the layers of a model are of a kind that is known here."""
    names = {type(layer).__name__ for layer in getattr(causal_lm.base_model, "layers", [])}
    known = {f"{family}DecoderLayer" for family in FAMILIES}
    return bool(names) and names <= known and causal_lm.config.hidden_act == "silu"


def make_lean(causal_lm: Any) -> bool:
    """Give the layers of a model the forward passes below; modules and parameters stay.

    Returns whether it was done, and the base model now takes `kept_positions`. Other architectures
    are left alone, and compiled layers: the compiler fuses what is apart in them. The model is for
    training then: it cannot generate with a cache, and as each module refers to itself, a model
    that is dropped stays until garbage is collected.
    """
    if not can_be_lean(causal_lm):
        return False
    layers = causal_lm.base_model.layers
    if layers[0]._compiled_call_impl is not None:
        return False
    for module in causal_lm.base_model.modules():
        forward = _FORWARDS.get(type(module).__name__)
        if forward is not None:
            module.forward = MethodType(forward, module)
    layers[-1].forward = MethodType(last_layer_forward, layers[-1])
    return True


def norm_forward(norm: Any, hidden_states: Tensor) -> Tensor:
    """RMS norm, x / sqrt(mean(x^2) + epsilon) in float32, times the weight: (..., D) -> same."""
    weight, epsilon = norm.weight, norm.variance_epsilon
    if hidden_states.is_cuda:
        return nn.functional.rms_norm(hidden_states, weight.shape, weight, epsilon)
    return _RmsNorm.apply(hidden_states, weight, epsilon)


def mlp_forward(mlp: Any, x: Tensor) -> Tensor:
    """down(silu(gate(x)) * up(x)): (..., D) -> (..., D)."""
    return mlp.down_proj(_SiluTimes.apply(mlp.gate_proj(x), mlp.up_proj(x)))


def attention_forward(
    attention: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    kept_positions: Tensor | None = None,
    past_key_values: Any = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Attention by the kernel that the configuration names, without a cache of keys and values.

    (B, T, D) -> (B, T, D), or (1, N, D) of the `kept_positions` (N,) among the B * T.
    """
    if past_key_values is not None:
        raise ValueError(
            "a model that `make_lean` has changed is for training: pass use_cache=False"
        )
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    heads = (*hidden_states.shape[:-1], -1, attention.head_dim)
    query, key, value = (
        project(hidden_states).view(heads).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cos, sin = (table.unsqueeze(1) for table in position_embeddings)
    own_kernel = import_module(type(attention).__module__).eager_attention_forward
    name = attention.config._attn_implementation
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, own_kernel)
    mixed, _ = attend(
        attention, _Rotation.apply(query, cos, sin), _Rotation.apply(key, cos, sin), value,
        attention_mask, scaling=attention.scaling,
        dropout=attention.attention_dropout if attention.training else 0.0,
        sliding_window=getattr(attention, "sliding_window", None), **arguments,
    )  # fmt: skip
    return attention.o_proj(_kept(mixed.flatten(2), kept_positions)), None


def layer_forward(
    layer: Any, hidden_states: Tensor, kept_positions: Tensor | None = None, **arguments: Any
) -> Tensor:
    """Any layer but the last: (B, T, D) -> (B, T, D), since the next needs all of them."""
    return last_layer_forward(layer, hidden_states, None, **arguments)


def last_layer_forward(
    layer: Any, hidden_states: Tensor, kept_positions: Tensor | None = None, **arguments: Any
) -> Tensor:
    """(B, T, D) -> (B, T, D), or (1, N, D) of the `kept_positions` (N,) among the B * T."""
    normed = layer.input_layernorm(hidden_states)
    mixed, _ = layer.self_attn(normed, kept_positions=kept_positions, **arguments)
    hidden_states = _kept(hidden_states, kept_positions) + mixed
    return hidden_states + layer.mlp(layer.post_attention_layernorm(hidden_states))


def _kept(hidden_states: Tensor, positions: Tensor | None) -> Tensor:
    if positions is None:
        return hidden_states
    return hidden_states.flatten(0, 1).index_select(0, positions)[None]


_FORWARDS: dict[str, Callable[..., Any]] = {
    f"{family}{part}": forward
    for family in FAMILIES
    for part, forward in (
        ("RMSNorm", norm_forward), ("MLP", mlp_forward), ("Attention", attention_forward),
        ("DecoderLayer", layer_forward),
    )
}  # fmt: skip


class _RmsNorm(torch.autograd.Function):
    """Keeps the input, in its own type, and a number for each row."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        x = hidden.float()
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.rsqrt(length.square_().div_(x.shape[-1]).add_(epsilon))
        ctx.save_for_backward(hidden, weight, inverse)
        return (x * inverse).to(hidden.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, weight, inverse = ctx.saved_tensors
        x, of_out, factor = hidden.float(), gradient.float(), weight.float()
        # One kernel, a layer norm's, gives what is wanted less a mean over each row.
        of_x, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            of_out, x, x.shape[-1:], torch.zeros_like(inverse), inverse, factor, None,
            [True, True, False],
        )  # fmt: skip
        of_x.addcmul_((of_out @ factor)[..., None], inverse, value=1 / x.shape[-1])
        return of_x.to(hidden.dtype), of_weight.to(weight.dtype), None


class _SiluTimes(torch.autograd.Function):
    """silu(gate) * up, keeping the two and not silu(gate).

    It is computed twice, and what is written over is not fetched: on a CPU an MLP takes 0.95 of the
    seconds all the same.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_silu = gradient * up
        of_gate = torch.ops.aten.silu_backward.grad_input(of_silu, gate, grad_input=of_silu)
        return of_gate, nn.functional.silu(gate).mul_(gradient)


class _Rotation(torch.autograd.Function):
    """Rotary position embedding of (B, H, T, d) by cos and sin (B, 1, T, d); keeps those alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x[i], x[i + d/2]) turned by an angle; both halves of the tables are alike."""
    (first, second), (of_sin, _) = x.chunk(2, -1), sin.chunk(2, -1)
    out = x * cos
    of_first, of_second = out.chunk(2, -1)
    of_first.addcmul_(second, of_sin, value=-1)
    of_second.addcmul_(first, of_sin)
    return out

"""Attention kernels and the chunked loss on this device, against plain computations.

    python -m benchmarks.gpu_kernels [--small]        # prints JSON

A part of gpu_suite.py. Shapes of Qwen2.5-1.5B (four of its layers) on MATH-like lengths; `--small`
is for a CPU.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.scaling_model import lengths_like_math
from sft_dist.attention import REGISTERED, register_attentions
from sft_dist.data.packing import MicroBatch, pack
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.loss import LossHead
from sft_dist.model import TokenScorer

FULL = {"hidden": 1536, "intermediate": 8960, "layers": 4, "heads": 12, "groups": 2,
        "vocabulary": 151_936, "tokens": 8192}  # fmt: skip
SMALL = {"hidden": 256, "intermediate": 688, "layers": 2, "heads": 4, "groups": 2,
         "vocabulary": 8192, "tokens": 1024}  # fmt: skip
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true")
    shape = SMALL if parser.parse_args().small else FULL
    print(json.dumps({"attention": attention(shape), "loss": loss(shape)}))


def attention(shape: dict[str, int]) -> dict[str, Any]:
    """Each kernel's packed log-probabilities against one example at a time; its tokens/s."""
    device, dtype = default_device(), torch.bfloat16
    examples = examples_like_math(shape["tokens"], shape["vocabulary"])
    reference = scores_alone(model(shape, "eager", torch.float32, device), examples, device)
    found = {}
    for name in kernels(device):
        scorer = TokenScorer(model(shape, name, dtype, device))
        batch = pack(examples).to(device)
        with torch.no_grad():
            scores = scorer(batch).log_probs.cpu()

        def step(scorer: TokenScorer = scorer, batch: MicroBatch = batch) -> None:
            scorer(batch).loss.backward()
            scorer.zero_grad()

        seconds = median_seconds(step, device)
        found[name] = {
            "largest difference from float32, one at a time": float(
                (scores - reference).abs().max()
            ),
            "mean difference": float((scores - reference).abs().mean()),
            "tokens/s, forward and backward": shape["tokens"] / seconds,
        }
    return found


def loss(shape: dict[str, int]) -> dict[str, Any]:
    """The chunked head against whole logits in float32: values, gradients, memory, time."""
    device, rows = default_device(), shape["tokens"] // 4
    torch.manual_seed(0)
    weight = torch.randn(shape["vocabulary"], shape["hidden"], device=device) * 0.02
    hidden = torch.randn(rows, shape["hidden"], device=device)
    targets = torch.randint(0, shape["vocabulary"], (rows,), device=device)
    head = nn.Linear(shape["hidden"], shape["vocabulary"], bias=False, device=device)
    head.weight.data.copy_(weight)
    chunked = LossHead.sharing(head)

    def plain(x: Tensor) -> Tensor:
        return nn.functional.cross_entropy(head(x), targets, reduction="sum")

    ways = {"chunked": lambda x: chunked(x, targets).loss, "whole logits": plain}
    results = {name: measured(way, hidden, head, device) for name, way in ways.items()}
    ours, theirs = (results[name].pop("tensors") for name in ways)
    worst = {
        name: float((a - b).norm() / b.norm())
        for name, a, b in zip(("loss", "hidden gradient", "weight gradient"), ours, theirs,
                              strict=True)
    }  # fmt: skip
    return {"rows": rows, "relative difference": worst, **results}


def measured(
    way: Callable[[Tensor], Tensor], hidden: Tensor, head: nn.Linear, device: torch.device
) -> dict[str, Any]:
    """Values and gradients of one way to the losses, its peak memory (GPU) and time."""
    x = hidden.clone().requires_grad_()

    def step() -> Tensor:
        x.grad = head.weight.grad = None
        loss = way(x)
        loss.backward()
        return loss.detach()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loss = step()
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    assert x.grad is not None
    assert head.weight.grad is not None
    tensors = loss, x.grad.clone(), head.weight.grad.clone()
    return {"tensors": tensors, "peak GiB": peak, "seconds": median_seconds(step, device)}


def kernels(device: torch.device) -> list[str]:
    """Names of `--attention` that run on this device."""
    if device.type == "cpu":
        return ["sdpa", "eager"]
    flash = ["flash_attention_2"] if find_spec("flash_attn") else []
    return [*flash, "torch_varlen", "sdpa"]


def model(shape: dict[str, int], kernel: str, dtype: torch.dtype, device: torch.device) -> Any:
    register_attentions()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape["vocabulary"], hidden_size=shape["hidden"],
        intermediate_size=shape["intermediate"], num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"], num_key_value_heads=shape["groups"],
        max_position_embeddings=4096, tie_word_embeddings=True,
        attn_implementation=REGISTERED.get(kernel, kernel),
    )  # fmt: skip
    made = Qwen2ForCausalLM(config).train()
    for parameter in made.parameters():  # the same values in every type; not the frequencies
        parameter.data = parameter.data.to(torch.bfloat16).to(dtype)
    return made.to(device)


def scores_alone(causal_lm: Any, examples: list[TokenizedExample], device: torch.device) -> Tensor:
    scorer = TokenScorer(causal_lm, lean=False)  # transformers' own layers
    with torch.no_grad():
        return torch.cat([scorer(pack([e]).to(device)).log_probs.cpu() for e in examples])


def examples_like_math(tokens: int, vocabulary: int) -> list[TokenizedExample]:
    """Examples that fill `tokens`; the last takes what is left."""
    source, examples, left = np.random.default_rng(0), list[TokenizedExample](), tokens
    while left > 0:
        (length,) = lengths_like_math(source, 1)
        length = left if left - length < 8 else length
        ids = source.integers(0, vocabulary, length)
        examples.append(TokenizedExample(f"train/x/{len(examples)}", ids, min(length - 2, 40)))
        left -= length
    return examples


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def median_seconds(step: Callable[[], Any], device: torch.device) -> float:
    """Of `ROUNDS`, after one that is not counted."""
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()

"""A forward and backward pass with `sft_dist.lean_layers` and with transformers' own layers.

    python -m benchmarks.lean_layers [--shape demo|0.5b|1.5b] [--threads 1]      # prints JSON

Same weights, same packed MATH-like examples, by turns in one process. Kept is what autograd holds
after the forward pass, parameters apart. On a GPU in bfloat16, on a CPU in float32. 0.5b and 1.5b
are four layers of Qwen2.5's shapes with a vocabulary of 8,192, so that layers are what is measured.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_kernels import default_device, examples_like_math, model
from sft_dist.cpu_allocator import keep_freed_memory
from sft_dist.data.packing import MicroBatch, pack
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.model import TokenScorer

SHAPES = {
    "demo": {"hidden": 128, "intermediate": 384, "layers": 2, "heads": 4, "groups": 4,
             "vocabulary": 384, "tokens": 2048},
    "0.5b": {"hidden": 896, "intermediate": 4864, "layers": 4, "heads": 14, "groups": 2,
             "vocabulary": 8192, "tokens": 2048},
    "1.5b": {"hidden": 1536, "intermediate": 8960, "layers": 4, "heads": 12, "groups": 2,
             "vocabulary": 8192, "tokens": 8192},
}  # fmt: skip
PROMPT_SHARE = 0.35
"""Of an example's tokens, as in MATH with the default prompt and in the demo."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="0.5b")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(compared(SHAPES[arguments.shape], arguments.rounds)))


def compared(shape: dict[str, int], rounds: int) -> dict[str, Any]:
    """Ratios of lean layers to transformers', and how far gradients are apart."""
    device = default_device()
    if device.type == "cpu":
        keep_freed_memory()  # as in a run
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    kernel = "torch_varlen" if device.type == "cuda" else "sdpa"
    scorers = [
        TokenScorer(model(shape, kernel, dtype, device), lean=lean) for lean in (True, False)
    ]
    batch = pack(split(examples_like_math(shape["tokens"], shape["vocabulary"]))).to(device)
    kept = [kept_bytes(scorer, batch) for scorer in scorers]
    gradients = [step(scorer, batch)[1] for scorer in scorers]
    times = [[step(scorer, batch)[0] for scorer in scorers] for _ in range(rounds)]
    lean, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "seconds": {"lean": lean, "transformers": theirs},
        "ratio of seconds": statistics.median(a / b for a, b in times),
        "ratio of bytes kept": kept[0] / kept[1],
        "largest difference of gradients": max(
            float((a - b).norm() / b.norm()) for a, b in zip(*gradients, strict=True)
        ),
    }


def split(examples: list[TokenizedExample]) -> list[TokenizedExample]:
    """The same tokens with prompts of the usual length."""
    return [
        TokenizedExample(e.id, e.input_ids, max(1, int(PROMPT_SHARE * len(e)))) for e in examples
    ]


def step(scorer: TokenScorer, batch: MicroBatch) -> tuple[float, list[Tensor]]:
    """Seconds of a forward and backward pass, and the gradients."""
    scorer.zero_grad()
    began = time.perf_counter()
    scorer(batch).loss.backward()
    if batch.input_ids.is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return seconds, [p.grad.float() for p in scorer.parameters() if p.grad is not None]


def kept_bytes(scorer: TokenScorer, batch: MicroBatch) -> int:
    """Bytes that autograd holds after a forward pass."""
    own = {p.untyped_storage().data_ptr() for p in scorer.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        scores = scorer(batch)
    assert scores.loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


if __name__ == "__main__":
    main()

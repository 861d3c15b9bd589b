"""The work that every side of `train_throughput.py` does: model, examples, optimizer steps.

Not a command. Our own `prepare` reads, cuts and tokenises the examples and says which are in which
step; the peers get what it found.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from sft_dist.arguments import parse_train_config
from sft_dist.data.records import load_split
from sft_dist.preparation import prepare
from sft_dist.tracking.throughput import step_flops


@dataclass(frozen=True, kw_only=True)
class Work:
    """This model on these examples, so many to a step."""

    model: Path
    data: Path
    """JSONL of the examples, for us."""
    batches: Path
    """Their token ids by step, for the peers."""
    num_steps: int
    global_batch_size: int
    batch_size: int
    max_seq_length: int
    learning_rate: float
    dtype: str
    """Ours; the peers' is chosen by trial."""
    more_flags: tuple[str, ...] = ()
    """Further flags of `sft_dist.train`."""

    def flags(self, run_dir: Path) -> list[str]:
        """Flags of `sft_dist.train` for this work: no evaluation, no warm-up, nothing reported."""
        flags = {
            "model_path": self.model,
            "data_path": self.data,
            "output_dir": run_dir,
            "dtype": self.dtype,
            "max_steps": self.num_steps,
            "global_batch_size": self.global_batch_size,
            "batch_size": self.batch_size,
            "max_seq_length": self.max_seq_length,
            "learning_rate": self.learning_rate,
            "warmup_steps": 0,
            "eval_placement": "off",
            "cache_dir": self.data.parent / "tokens",
            "wandb_mode": "disabled",
        }
        pairs = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        return [*pairs, *self.more_flags]


@dataclass(frozen=True)
class Steps:
    """What the optimizer steps cost. Lists have one entry a step."""

    tokens: list[int]
    target_tokens: list[int]
    flops: list[float]
    """As `sft_dist.tracking.throughput.step_flops` counts them."""
    needed_flops: list[float]
    """Less those of the head at positions without a loss, whose logits nobody needs."""

    def rate(self, amounts: list[int] | list[float], seconds: list[float]) -> float:
        """`amounts` a second. The first step pays for what comes once: it counts only if alone."""
        first = 1 if len(self.tokens) > 1 else 0
        return sum(amounts[first:]) / sum(seconds[first:])


def sample_examples(data_path: str, count: int, seed: int, path: Path) -> Path:
    """Write `count` training examples as JSONL, a sample; the first files are all algebra."""
    examples = load_split(data_path, "train").examples
    if len(examples) < count:
        raise SystemExit(f"--data_path {data_path}: {count} examples are needed (--steps x "
                         f"--global_batch_size), found {len(examples)}")  # fmt: skip
    chosen = random.Random(seed).sample(examples, count)
    lines = [json.dumps({"problem": e.problem, "solution": e.solution}) + "\n" for e in chosen]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_batches(work: Work) -> Steps:
    """Write `work.batches`, the examples of each step in order; what the steps cost."""
    prepared = prepare(parse_train_config(work.flags(work.data.parent / "none"), []), world_size=1)
    steps = [
        [prepared.examples[i] for i in prepared.plan.global_batch(step)]
        for step in range(work.num_steps)
    ]
    rows = [
        [{"input_ids": e.input_ids.tolist(), "prompt_length": e.prompt_length} for e in step]
        for step in steps
    ]
    work.batches.write_text(json.dumps(rows), encoding="utf-8")
    lengths = [[len(e) for e in step] for step in steps]
    targets = [sum(e.num_target_tokens for e in step) for step in steps]
    return _cost(work.model, lengths, targets)


def first_steps(work: Work, count: int, path: Path) -> Path:
    """Write the first `count` steps of `work.batches` to `path`."""
    steps = json.loads(work.batches.read_text(encoding="utf-8"))[:count]
    path.write_text(json.dumps(steps), encoding="utf-8")
    return path


def _cost(model: Path, lengths: list[list[int]], targets: list[int]) -> Steps:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model)
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(config)
    num_parameters = sum(p.numel() for p in shapes.parameters())  # a tied head counts once
    if not config.tie_word_embeddings:  # an embedding of its own is looked up, not multiplied
        num_parameters -= config.vocab_size * config.hidden_size
    tokens = [sum(step) for step in lengths]
    flops = [step_flops(config, num_parameters, step) for step in lengths]
    head = 6.0 * config.vocab_size * config.hidden_size
    needed = [f - head * (n - t) for f, n, t in zip(flops, tokens, targets, strict=True)]
    return Steps(tokens, targets, flops, needed)

"""How even the batch planner makes the work, on the real lengths of a data set.

    python benchmarks/batch_planner.py --data_path MATH --model_path MODEL

Against the plain way: examples in random order, each rank takes the next ones in micro-batches of
`--batch_size`, padded to the longest. No model is loaded but its tokenizer; it counts tokens, and
the planner's CPU time. The tables are Markdown, for benchmarks/README.md.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from sft_dist.data.batching import Plan, computed_tokens, split_global_batch
from sft_dist.data.records import load_split
from sft_dist.data.sampler import BatchPlan
from sft_dist.data.token_cache import default_cache_dir
from sft_dist.data.tokenization import tokenize_examples
from sft_dist.model import load_tokenizer, stop_token_id

SHAPES = [(2, 32), (8, 32), (64, 32), (8, 8), (8, 4), (64, 4)]
"""(ranks, examples a rank and step)."""

HEAD = """
{title}

| ranks x examples | steps | max/mean tokens: mean | worst | last batch | padding | \
useful | micro-batches a rank | ms a step |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Step:
    """One global batch, as it is computed."""

    num_examples: int
    tokens: int
    """Real ones."""
    computed: list[list[int]]
    """Tokens by rank and micro-batch, padding with them."""
    seconds: float
    """Of the processor, for the plan."""

    @property
    def imbalance(self) -> float:
        """Most tokens computed on a rank over the mean."""
        loads = [sum(rank) for rank in self.computed]
        return max(loads) / mean(loads)

    @property
    def padding(self) -> float:
        """Share of the tokens computed."""
        return 1 - self.tokens / sum(map(sum, self.computed))

    @property
    def useful(self) -> float:
        """Real tokens over what all ranks could compute in that time.

        All wait for the slowest after each micro-batch, as ZeRO-2 makes them.
        """
        slowest = sum(map(max, zip(*self.computed, strict=True)))
        return self.tokens / (len(self.computed) * slowest)


def balanced(lengths: Sequence[int], ranks: int, *, max_tokens: int) -> Step:
    began = time.process_time()
    plan = split_global_batch(lengths, ranks, max_tokens)
    seconds = time.process_time() - began
    computed = computed_tokens(plan, lengths, packing=True)
    return Step(len(lengths), sum(lengths), computed, seconds)


def plain(lengths: Sequence[int], ranks: int, *, batch_size: int) -> Step:
    """The global batch is in random order already; of a short one the last ranks get less."""
    share = -(-len(lengths) // ranks)
    plan: Plan = []
    for rank in range(ranks):
        own = list(range(rank * share, min((rank + 1) * share, len(lengths))))
        plan.append([own[i : i + batch_size] for i in range(0, share, batch_size)])
    return Step(len(lengths), sum(lengths), computed_tokens(plan, lengths, packing=False), 0.0)


def global_batches(
    lengths: Sequence[int], size: int, seed: int, epochs: int
) -> Iterator[list[int]]:
    plan = BatchPlan(
        num_examples=len(lengths), global_batch_size=size, num_epochs=epochs, seed=seed
    )
    for step in range(plan.total_steps):
        yield [lengths[i] for i in plan.global_batch(step)]


def table_row(ranks: int, examples: int, steps: Sequence[Step]) -> str:
    full = [s for s in steps if s.num_examples == ranks * examples]
    short = [s for s in steps if s.num_examples < ranks * examples]
    last = f"{max(s.imbalance for s in short):.3f} ({short[0].num_examples} ex.)" if short else "-"
    cells = [
        f"{ranks} x {examples}",
        str(len(steps)),
        f"{mean(s.imbalance for s in full):.4f}",
        f"{max(s.imbalance for s in full):.4f}",
        last,
        f"{mean(s.padding for s in full):.1%}",
        f"{mean(s.useful for s in full):.1%}",
        f"{mean(len(s.computed[0]) for s in full):.1f}",
        f"{1e3 * mean(s.seconds for s in steps):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    options = parse()
    lengths = example_lengths(options)
    max_tokens = options.batch_size * options.max_seq_length
    print(f"{len(lengths)} examples, {sum(lengths)} tokens, {options.epochs} epochs")
    ways = {
        f"Ours, packed, at most {max_tokens} tokens": lambda batch, ranks: balanced(
            batch, ranks, max_tokens=max_tokens
        ),
        f"Random, padded batches of {options.batch_size}": lambda batch, ranks: plain(
            batch, ranks, batch_size=options.batch_size
        ),
    }
    for title, way in ways.items():
        print(HEAD.format(title=title))
        for ranks, examples in SHAPES:
            batches = global_batches(lengths, ranks * examples, options.seed, options.epochs)
            print(table_row(ranks, examples, [way(batch, ranks) for batch in batches]))


def example_lengths(options: argparse.Namespace) -> list[int]:
    tokenizer = load_tokenizer(options.model_path)
    tokenized = tokenize_examples(
        load_split(options.data_path, "train").examples,
        tokenizer,
        prompt="default",
        stop_token_id=stop_token_id(options.model_path, tokenizer),
        max_seq_length=options.max_seq_length,
        overlength="truncate",
        cache_dir=options.cache_dir,
    )
    return [len(e) for e in tokenized]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", required=True, help="as for sft-train")
    parser.add_argument("--model_path", required=True, help="directory with the tokenizer")
    parser.add_argument("--max_seq_length", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--cache_dir", type=Path, default=default_cache_dir())
    return parser.parse_args()


if __name__ == "__main__":
    main()

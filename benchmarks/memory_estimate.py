"""The memory estimate of `sft_dist.preflight` against what processes were measured to take.

    python benchmarks/memory_estimate.py                 # the table in benchmarks/README.md, ~1 h

Random Qwen2 models of four sizes on the CPU, the largest with the shape of Qwen2.5-0.5B; peak
resident size of a rank in the second step, above what it was after the imports, for each engine,
type and number of ranks.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_dist.config import from_flat
from sft_dist.preflight_checks.memory_model import ModelShape, StepShape, estimate_memory
from sft_dist.preflight_checks.probe import ProbeResult, probe_rank
from sft_dist.runtime.launch_environment import free_port

MIB = 2**20


@dataclass(frozen=True)
class Size:
    """A random Qwen2."""

    name: str
    hidden: int
    layers: int
    intermediate: int
    vocabulary: int
    tokens: int
    kv_heads: int


SIZES = (
    Size("10M", 256, 6, 1024, 16384, 2048, 1),
    Size("25M", 384, 8, 1536, 24576, 1024, 1),
    Size("41M", 512, 8, 1536, 32768, 1024, 2),
    Size("494M", 896, 24, 4864, 151936, 1024, 2),
)
ENGINES = (("torch", 0), ("deepspeed", 2), ("fsdp", 0))
EXAMPLES_IN_ROW = 4
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
"""Makes glibc give freed memory back at once, so that what tensors take is measured. It costs time,
so runs do not do it: they keep freed ones of less than 32 MiB, in pieces."""


def write_model(size: Size, directory: Path) -> ModelShape:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=size.vocabulary, hidden_size=size.hidden, intermediate_size=size.intermediate,
        num_hidden_layers=size.layers, num_attention_heads=size.hidden // 64,
        num_key_value_heads=size.kv_heads, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(directory)
    return ModelShape.of(model)


def measure(
    directory: Path, size: Size, *, engine: str, dtype: str, world_size: int, returning: bool
) -> list[ProbeResult]:
    """One result a rank; `returning` gives freed memory back to the system at once."""
    settings = settings_of(directory, engine=engine, dtype=dtype)
    length = size.tokens // EXAMPLES_IN_ROW
    rows = [[(length, length // 3)] * EXAMPLES_IN_ROW] * 2
    port = free_port()

    def rank(number: int) -> ProbeResult:
        place = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world_size)}
        return probe_rank(
            settings, rows, model_dir=directory, stop_token_id=1, world_size=world_size, port=port,
            rank={"OMP_NUM_THREADS": "1", **(RETURN_FREED if returning else {}), **place},
        )  # fmt: skip

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(rank, range(world_size)))


def settings_of(directory: Path, *, engine: str, dtype: str) -> dict[str, Any]:
    flags = {
        "model_path": str(directory), "data_path": "owner/data", "engine": engine, "dtype": dtype,
        "eval_placement": "off",
    }  # fmt: skip
    return from_flat(flags).flat()


def rows(
    selected: list[str],
    world_sizes: list[int],
    engines: list[str],
    dtypes: list[str],
    *,
    returning: bool,
) -> Iterator[dict[str, Any]]:
    for size in (s for s in SIZES if s.name in selected):
        length = size.tokens // EXAMPLES_IN_ROW
        with tempfile.TemporaryDirectory() as folder:
            shape = write_model(size, Path(folder))
            chosen = [pair for pair in ENGINES if pair[0] in engines]
            cases = itertools.product(chosen, dtypes, world_sizes)
            for (engine, stage), dtype, world_size in cases:
                step = StepShape(
                    engine=engine, stage=stage, world_size=world_size, dtype=dtype,
                    tokens=size.tokens, bucket=100_000_000,
                    target_tokens=EXAMPLES_IN_ROW * (length - length // 3),
                )  # fmt: skip
                estimate = estimate_memory(shape, step)
                peak = estimate.peak - (estimate.parts["allocator"] if returning else 0)
                results = measure(
                    Path(folder),
                    size,
                    engine=engine,
                    dtype=dtype,
                    world_size=world_size,
                    returning=returning,
                )
                yield {
                    "parameters": shape.num_parameters, "engine": engine, "dtype": dtype,
                    "ranks": world_size, "measured": max(r.peak for r in results),
                    "build": max(r.build_peak for r in results), "estimate": peak,
                    "moment": estimate.fullest, "parts": estimate.parts,
                    "moments": estimate.moments, "error": results[0].error,
                    "seconds": results[0].step_seconds,
                }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", default=[size.name for size in SIZES])
    parser.add_argument("--ranks", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--engines", nargs="*", default=[engine for engine, _ in ENGINES])
    parser.add_argument(
        "--returning", action="store_true", help="only tensors: freed memory is given back at once"
    )
    parser.add_argument("--json", type=Path, help="all parts and moments of each case")
    options = parser.parse_args()
    found = []
    print(
        "| parameters | engine | type | ranks | measured MiB | estimate MiB | off by | fullest at |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows(
        options.sizes, options.ranks, options.engines, options.dtypes, returning=options.returning
    ):
        found.append(row)
        if row["error"]:
            print(row["error"])
            continue
        off = row["estimate"] / row["measured"] - 1
        print(
            f"| {row['parameters'] / 1e6:.0f} M | {row['engine']} | {row['dtype']} | "
            f"{row['ranks']} | {row['measured'] / MIB:,.0f} | {row['estimate'] / MIB:,.0f} | "
            f"{off:+.1%} | {row['moment']} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

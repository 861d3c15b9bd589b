"""What memory running out looks like, and what is said about it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sft_dist.data.packing import pack
from sft_dist.engines.totals import StepTotals
from sft_dist.errors import OutOfMemoryError
from sft_dist.out_of_memory import SHOWN, describe_micro_batch, is_out_of_memory, memory_advice
from tests.tiny import tiny_examples

CPU = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"

TOO_LARGE = """
import resource
import torch
from sft_dist.config import OptimizerConfig
from sft_dist.data.packing import pack
from sft_dist.engines.torch_engine import TorchEngine
from tests.tiny import tiny_examples, tiny_model

engine = TorchEngine(tiny_model(), OptimizerConfig(), device=torch.device("cpu"))
small, large = pack(tiny_examples(2)), pack(tiny_examples(3000))
engine.train_step([small], 10, 1e-3)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
engine.train_step([small, large], 10, 1e-3)
"""


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError(CPU)]
)
def test_every_allocator_is_understood(error):
    assert is_out_of_memory(error)


def test_another_error_is_another_error():
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError(CPU))


def test_a_micro_batch_is_told_with_its_longest_examples_first():
    examples = tiny_examples(SHOWN + 3)
    told = describe_micro_batch(pack(examples))
    longest = max(examples, key=len)
    assert f"{len(examples)} examples, {sum(map(len, examples))} places" in told
    assert told.index(f"{longest.id} ({len(longest)})") < 120
    assert "and 3 shorter ones" in told


def test_the_micro_batch_under_way_is_the_one_that_is_named():
    first, second = (pack([example]) for example in tiny_examples(2))
    totals = StepTotals(torch.device("cpu"), 2)
    totals.begin(first)
    totals.begin(second)
    with pytest.raises(OutOfMemoryError) as caught, totals:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    assert second.example_ids[0] in str(caught.value)
    assert first.example_ids[0] not in str(caught.value)
    assert "Tried to allocate 2 GiB" in str(caught.value)


def test_an_error_of_another_kind_passes():
    with pytest.raises(RuntimeError, match="size mismatch"), StepTotals(torch.device("cpu"), 1):
        raise RuntimeError("size mismatch")


@pytest.mark.slow
def test_a_row_too_large_for_the_host_is_named():
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE], capture_output=True, text=True,
        cwd=Path(__file__).parents[1], check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert "OutOfMemoryError: memory ran out in a micro-batch of 3000 examples" in last
    assert re.search(r"train/x/\d+ \(60\)", last)


def test_the_advice_names_flags_with_values_and_leaves_out_what_is_set(configured):
    told = memory_advice(configured(batch_size=4, max_seq_length=1024))
    assert "--max_tokens_per_microbatch 2048 (now 4096" in told
    assert "--activation_checkpointing" in told
    assert "--ds_config zero3" in told
    spare = {"activation_checkpointing": True, "max_tokens_per_microbatch": 1024}
    told = memory_advice(configured(**spare, ds_config="zero3", eval_placement="off"))
    for flag in ("microbatch", "--activation", "--ds_config", "--eval_placement"):
        assert flag not in told


def test_no_row_is_made_shorter_than_the_longest_example(configured):
    told = memory_advice(configured(max_tokens_per_microbatch=1500, max_seq_length=1024))
    assert "--max_tokens_per_microbatch 1024" in told

"""One curve: engine, ranks and micro-batches must not change what is learnt.

Each recipe trains the tiny model at learning rate 1e-3 without warm-up for 20 steps over unequal
lengths, a short last batch of each epoch (5 of 8 examples) among them. AdamW hides a wrong scale
of the gradient, so what is compared are gradients of step 1, norms before clipping, and the change
of the parameters; and recipes with such a fault must differ.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
STEPS = 20
HALF = 10

# On two ranks. Examples have up to 60 tokens: these are batch sizes 1, 2 and 4.
TWO_RANKS = {
    "torch-60": {"engine": "torch", "max_tokens": 60},
    "zero0-60": {"engine": "deepspeed", "stage": 0, "max_tokens": 60},
    "zero1-60": {"engine": "deepspeed", "stage": 1, "max_tokens": 60},
    "zero2-60": {"engine": "deepspeed", "stage": 2, "max_tokens": 60},
    "zero2-120": {"engine": "deepspeed", "stage": 2, "max_tokens": 120},
    "zero2-240": {"engine": "deepspeed", "stage": 2, "max_tokens": 240},
    "zero2 recomputing activations": {
        "engine": "deepspeed", "stage": 2, "max_tokens": 60, "activation_checkpointing": True,
    },
    "zero2 offloaded": {
        "engine": "deepspeed", "stage": "2_offload_optimizer", "max_tokens": 60,
    },
    "zero3 offloaded": {
        "engine": "deepspeed", "stage": "3_offload_optimizer", "max_tokens": 60,
    },
    "zero3-60": {"engine": "deepspeed", "stage": 3, "max_tokens": 60},
}  # fmt: skip
MUTANTS = {
    f"mutant {fault}": {"engine": "deepspeed", "stage": 2, "max_tokens": 60, "mutant": fault}
    for fault in ("scale doubled", "mean per micro-batch", "rank dropped")
}
BF16 = {
    "torch-bf16": {"engine": "torch", "max_tokens": 60, "dtype": "bfloat16"},
    "zero2-bf16": {"engine": "deepspeed", "stage": 2, "max_tokens": 60, "dtype": "bfloat16"},
    "zero3-bf16": {"engine": "deepspeed", "stage": 3, "max_tokens": 60, "dtype": "bfloat16"},
}


def launch(out, recipes, processes):
    arguments = [f"{name}={json.dumps({'steps': STEPS, **r})}" for name, r in recipes.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), str(ROOT / "tests/engines/curve_worker.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(out), *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {name: torch.load(out / f"{name}.pt") for name in recipes}


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    out = tmp_path_factory.mktemp("curves")
    checkpoint = {"engine": "deepspeed", "stage": 2, "max_tokens": 60, "save": str(out / "half")}
    resumed = {
        f"resumed {name}": {**recipe, "first": HALF, "load": str(out / "half")}
        for name, recipe in TWO_RANKS.items()
        if name.endswith("-60")
    }
    found = launch(
        out, {**TWO_RANKS, **MUTANTS, **BF16, "half": {**checkpoint, "steps": HALF}, **resumed}, 2
    )
    alone = {
        "reference": {"engine": "torch", "max_tokens": 240},
        "one rank zero2": {"engine": "deepspeed", "stage": 2, "max_tokens": 60},
        "resumed on one rank": {
            "engine": "torch", "max_tokens": 60, "first": HALF, "load": str(out / "half"),
        },
    }  # fmt: skip
    return found | launch(out, alone, 1)


def flat(tensors):
    return torch.cat([tensors[name] for name in sorted(tensors)])


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def largest(found, expected):
    return max(abs(a - b) / b for a, b in zip(found, expected, strict=True))


def change(curve, start):
    return flat(curve["end"]) - flat(start)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TWO_RANKS, "one rank zero2"])
def test_every_engine_and_every_cut_gives_the_curve_of_plain_torch_on_one_rank(curves, name):
    curve, reference = curves[name], curves["reference"]
    assert relative(flat(curve["gradients"]), flat(reference["gradients"])) < 1e-5
    assert largest(curve["norms"], reference["norms"]) < 1e-4
    assert largest(curve["losses"], reference["losses"]) < 1e-4
    start = reference["start"]
    assert relative(change(curve, start), change(reference, start)) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_scale_does_not_pass_for_the_curve(curves, name):
    curve, reference = curves[name], curves["reference"]
    assert relative(flat(curve["gradients"]), flat(reference["gradients"])) > 1e-2
    assert largest(curve["norms"], reference["norms"]) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2-bf16", "zero3-bf16"])
def test_in_bf16_the_sharded_engines_give_the_curve_of_the_plain_one(curves, name):
    curve, reference = curves[name], curves["torch-bf16"]
    assert relative(flat(curve["gradients"]), flat(reference["gradients"])) < 1e-5
    assert largest(curve["norms"], reference["norms"]) < 1e-2
    assert largest(curve["losses"], reference["losses"]) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["torch-60", "zero0-60", "zero1-60", "zero2-60", "zero3-60", "on one rank"]
)
def test_state_saved_by_zero2_on_two_ranks_is_continued_by_any_engine(curves, name):
    curve, reference = curves[f"resumed {name}"], curves["reference"]
    assert largest(curve["norms"], reference["norms"][HALF:]) < 1e-4
    assert largest(curve["losses"], reference["losses"][HALF:]) < 1e-4
    start = reference["start"]
    assert relative(change(curve, start), change(reference, start)) < 1e-3


@pytest.mark.slow
def test_the_curve_is_one_that_learns(curves):
    losses = curves["reference"]["losses"]
    assert len(losses) == STEPS
    assert losses[-1] < 0.8 * losses[0]

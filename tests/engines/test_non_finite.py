"""A loss or a gradient that is not finite: no update, and the culprits by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.non_finite_worker import RECIPES

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("non_finite") / "found"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(ROOT / "tests/engines/non_finite_worker.py"), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", RECIPES)
def test_a_bad_loss_is_told_on_every_rank_with_its_rank_and_examples(found, name):
    culprits = found[1][name]["ids"]
    for rank in (0, 1):
        message = found[rank][name]["loss"]["message"]
        assert message.startswith("rank 1: loss ")
        assert all(example in message for example in culprits)


@pytest.mark.parametrize("name", RECIPES)
def test_a_bad_loss_changes_neither_parameter_nor_moment_nor_count(found, name):
    for rank in (0, 1):
        outcome = found[rank][name]["loss"]
        assert not outcome["applied"]
        assert outcome["unchanged"]


@pytest.mark.parametrize("name", RECIPES)
def test_training_after_a_step_left_out_is_as_if_it_had_not_been(found, name):
    assert all(found[rank][name]["as if it had not been"] for rank in (0, 1))


@pytest.mark.parametrize("name", RECIPES)
def test_a_bad_gradient_changes_no_parameter(found, name):
    for rank in (0, 1):
        assert found[rank][name]["gradient"] == {"applied": False, "unchanged": True}

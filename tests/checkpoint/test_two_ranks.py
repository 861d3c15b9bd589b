"""Two ranks save together: one checkpoint of both parts, one answer when one of them cannot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What rank 0 and rank 1 saw."""
    out = tmp_path_factory.mktemp("two-ranks")
    done = subprocess.run(
        [*TORCHRUN, "-m", "tests.checkpoint.two_ranks", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def test_both_parts_are_in_the_checkpoint_as_they_were_at_its_step(seen):
    for rank in seen:
        assert rank["stored"] == {
            "adam_step": 3, "values": [[3.0], [3.25], [3.5]], "damage": [],
        }  # fmt: skip


def test_training_goes_on_on_both_ranks_while_one_of_them_writes(seen):
    for rank in seen:
        assert rank["beside"]["seconds"] > 1.9  # rank 1 takes two to begin
        assert rank["beside"]["rounds"] > 20
        assert rank["beside"]["stall"] < 1.5


@pytest.mark.parametrize("failing", [0, 1])
def test_when_one_rank_cannot_write_all_say_which_and_the_older_checkpoint_stays(seen, failing):
    for rank in seen:
        found = rank[f"failing {failing}"]
        assert "checkpoint-6" in found["fault"]
        assert f"rank {failing}: No space left on device; " in found["fault"]
        assert found["entries"] == ["checkpoint-3", "checkpoint-9"]


def test_what_rank_0_alone_could_not_write_is_dealt_with_together(seen):
    assert [rank["export"]["lost"] for rank in seen] == [[5], []]
    for rank in seen:
        assert "checkpoint-6" in rank["export"]["entries"]

"""What all ranks are told when some of them could not do their part."""

import pytest

from sft_dist.checkpoint import SavingRanks
from sft_dist.checkpoint.agreement import _by_rank
from sft_dist.errors import CheckpointError


def test_one_process_gets_its_own_result(tmp_path):
    ranks = SavingRanks()
    assert ranks.together(tmp_path, lambda: 3) == [3]
    assert [ranks.any(flag) for flag in (True, False)] == [True, False]


def test_whatever_goes_wrong_becomes_one_error_that_says_where(tmp_path):
    def fail():
        raise ZeroDivisionError("a bug")

    for work in (SavingRanks().together, SavingRanks().alone):
        with pytest.raises(CheckpointError, match="ZeroDivisionError: a bug") as caught:
            work(tmp_path / "checkpoint-4", fail)
        assert str(tmp_path / "checkpoint-4") in str(caught.value)


def test_a_fault_that_many_ranks_have_is_told_once():
    assert _by_rank([None, None]) == ""
    assert _by_rank(["full", None, "full", "broken"]) == "ranks 0, 2: full; rank 3: broken"

"""A run on 2, 1, 2 and 4 ranks, stopped in three ways on the way, has the unbroken run's curve."""

import json

import pytest

from sft_dist.tracking.record import read_rows
from tests.faults.elastic_run import CHAINS, broken, compared, unbroken
from tests.faults.tiny_runs import log_of, make_inputs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.exhaustive
def test_a_run_on_two_one_two_and_four_ranks_has_the_curve_of_the_unbroken_one(inputs, tmp_path):
    whole, run_dir = tmp_path / "whole", tmp_path / "broken"
    unbroken(inputs, whole, "zero2")
    cuts = broken(inputs, run_dir, "zero2")
    assert len(set(cuts)) == 3
    found = compared(inputs, run_dir, whole, cuts)
    assert found.is_rounding(), found
    rows = [row for row in read_rows(run_dir) if "step" in row]
    assert [row["step"] for row in rows] == list(range(1, 17))  # none was done twice
    assert {row["attempt"] for row in rows} == {1, 2, 3, 4}
    assert json.loads((run_dir / "environment.json").read_text())["world_size"] == 4
    assert "STOP file: another number of ranks" in log_of(run_dir).read_text()


@pytest.mark.exhaustive
@pytest.mark.parametrize("chain", [name for name in CHAINS if name != "zero2"])
def test_other_engines_and_changes_of_the_engine_keep_the_curve_too(inputs, tmp_path, chain):
    whole, run_dir = tmp_path / "whole", tmp_path / "broken"
    unbroken(inputs, whole, chain)
    found = compared(inputs, run_dir, whole, broken(inputs, run_dir, chain))
    assert found.is_rounding(), found

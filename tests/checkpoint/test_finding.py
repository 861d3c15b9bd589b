"""Which checkpoint a run continues from."""

import logging

import pytest

from sft_dist.checkpoint import find_checkpoint, list_checkpoints
from sft_dist.checkpoint.layout import MANIFEST
from sft_dist.errors import CheckpointError
from tests.checkpoint.fakes import flip, save


def steps_in(run_dir):
    return [int(path.name.split("-")[1]) for path in list_checkpoints(run_dir)]


def test_checkpoints_are_listed_by_number_and_nothing_else_is(tmp_path):
    for step in (10, 9, 100):
        save(tmp_path, step)
    for name in ("checkpoint-x", ".tmp-checkpoint-7", "checkpoint-7.bak", "other"):
        (tmp_path / name).mkdir()
    assert steps_in(tmp_path) == [9, 10, 100]


def test_latest_is_the_newest_by_number(tmp_path):
    for step in (9, 100, 10):
        save(tmp_path, step)
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-100"


@pytest.mark.parametrize("run", ["", "not there"])
def test_latest_with_nothing_there_is_a_fresh_start(tmp_path, run):
    assert find_checkpoint(tmp_path / run, "latest") is None


def test_a_run_directory_stands_for_its_newest_checkpoint(tmp_path):
    save(tmp_path / "other", 4)
    found = find_checkpoint(tmp_path / "this", str(tmp_path / "other"))
    assert found == tmp_path / "other" / "checkpoint-4"


def test_a_run_directory_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(tmp_path, str(tmp_path))


def test_a_checkpoint_that_is_named_is_taken_though_there_are_newer_ones(tmp_path):
    first = save(tmp_path, 4)
    save(tmp_path, 8)
    assert find_checkpoint(tmp_path, str(first)) == first


def test_damaged_checkpoints_are_passed_over_and_named(tmp_path, caplog):
    for step in (4, 8, 12):
        save(tmp_path, step)
    flip(tmp_path / "checkpoint-12" / "engine" / "__0_0.distcp")
    (tmp_path / "checkpoint-8" / MANIFEST).unlink()
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-4"
    for words in ("checkpoint-12", "engine/__0_0.distcp", "checkpoint-8", MANIFEST):
        assert words in caplog.text
    assert "checkpoint-4" not in caplog.text


def test_when_all_are_damaged_nothing_is_started_afresh(tmp_path):
    for step in (4, 8):
        flip(save(tmp_path, step) / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(tmp_path, "latest")
    assert "checkpoint-4: model.safetensors" in str(caught.value)
    assert "checkpoint-8: model.safetensors" in str(caught.value)


def test_a_named_checkpoint_that_is_damaged_is_not_replaced_by_another(tmp_path):
    save(tmp_path, 4)
    flip(save(tmp_path, 8) / "model.safetensors")
    with pytest.raises(CheckpointError, match="checkpoint-8"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-8"))

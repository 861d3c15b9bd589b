"""What is removed, and what is spared."""

import os

import pytest

from sft_dist.checkpoint import (
    Retention,
    damage,
    remove_leftovers,
    remove_old_checkpoints,
    retention,
    share_weights,
    what_to_keep,
)
from tests.checkpoint.fakes import entries, save


def keeping(run_dir, accuracies=None, *, keep_best=True, reading=(), apart=()):
    return what_to_keep(
        run_dir, accuracies or {}, keep_last=1, keep_best=keep_best, reading=reading,
        reading_apart=apart,
    )  # fmt: skip


def without_links(monkeypatch):
    def refused(source, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)


def test_the_newest_n_are_kept(tmp_path):
    for step in (2, 4, 6, 8, 10):
        save(tmp_path, step, keep_last=2)
    assert entries(tmp_path) == ["checkpoint-10", "checkpoint-8"]


def test_steps_to_keep_stay_besides_the_newest_n(tmp_path):
    for step in (2, 4, 6, 8, 10):
        save(tmp_path, step, keep_last=2, keep={4})
    assert entries(tmp_path) == ["checkpoint-10", "checkpoint-4", "checkpoint-8"]


def test_a_step_no_longer_kept_goes_at_the_next_save(tmp_path):
    for step, keep in ((2, {2}), (4, {2}), (6, {4}), (8, {4})):
        save(tmp_path, step, keep_last=1, keep=keep)
    assert entries(tmp_path) == ["checkpoint-4", "checkpoint-8"]


def test_0_keeps_all(tmp_path):
    for step in (2, 4, 6):
        save(tmp_path, step, keep_last=0)
    assert entries(tmp_path) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def test_the_one_just_written_is_never_removed(tmp_path):
    """A run resumed from an older checkpoint writes smaller numbers than those that are there."""
    for step in (8, 10):
        save(tmp_path, step)
    save(tmp_path, 4, keep_last=1)
    assert entries(tmp_path) == ["checkpoint-10", "checkpoint-4"]


def test_a_directory_is_renamed_before_its_files_go(tmp_path, monkeypatch):
    for step in (2, 4):
        save(tmp_path, step)
    removed = []
    monkeypatch.setattr(
        retention.shutil, "rmtree", lambda path, ignore_errors=False: removed.append(path.name)
    )
    remove_old_checkpoints(tmp_path, Retention(keep_last=1))
    assert set(removed) == {".removing-checkpoint-2"}
    assert entries(tmp_path) == [".removing-checkpoint-2", "checkpoint-4"]


def test_what_may_yet_be_the_best_leaves_its_weights_under_a_name_that_does_not_promise_more(
    tmp_path,
):
    for step in (2, 4):
        save(tmp_path, step, keep_last=1, keep_weights={2})
    assert entries(tmp_path) == ["checkpoint-4", "weights-2"]
    assert entries(tmp_path / "weights-2") == ["config.json", "model.safetensors", "tokenizer.json"]
    remove_old_checkpoints(tmp_path, Retention(keep_last=1, keep={2}))  # it is the best
    assert entries(tmp_path) == ["checkpoint-4", "weights-2"]
    remove_old_checkpoints(tmp_path, Retention(keep_last=1))
    assert entries(tmp_path) == ["checkpoint-4"]


def test_the_best_that_is_there_is_kept_and_the_earlier_of_two(tmp_path):
    for step in (2, 4, 6):
        save(tmp_path, step)
    accuracies = {2: 0.5, 3: 0.9, 4: 0.5}  # step 3 was evaluated and not saved
    assert keeping(tmp_path, accuracies).keep == {2}
    assert keeping(tmp_path, accuracies, keep_best=False).keep == set()


def test_weights_that_are_left_of_a_checkpoint_can_be_the_best(tmp_path):
    for step in (2, 4):
        save(tmp_path, step, keep_last=1, keep_weights={2})
    assert keeping(tmp_path, {2: 0.5, 4: 0.1}).keep == {2}


def test_what_an_evaluation_reads_in_place_is_kept_whole(tmp_path):
    found = keeping(tmp_path, reading={2, 4}, apart={4})
    assert (found.keep, found.keep_weights) == ({2}, {2, 4})
    assert keeping(tmp_path, reading={2, 4}, apart={4}, keep_best=False).keep_weights == set()


def test_a_second_name_holds_the_model_alone_and_outlives_the_checkpoint(tmp_path):
    path = save(tmp_path, 2)
    assert share_weights(path, tmp_path / "exports" / "step-2")
    save(tmp_path, 4, keep_last=1)
    assert entries(tmp_path / "exports") == ["step-2"]
    found = entries(tmp_path / "exports/step-2")
    assert found == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (tmp_path / "exports/step-2/model.safetensors").read_bytes() == b"weights"


def test_without_hard_links_there_is_no_second_name(tmp_path, monkeypatch):
    path = save(tmp_path, 2)
    without_links(monkeypatch)
    assert not share_weights(path, tmp_path / "exports" / "step-2")
    assert entries(tmp_path / "exports") == []
    assert damage(path) == []


@pytest.mark.parametrize("name", [".tmp-checkpoint-8", ".removing-checkpoint-2", ".tmp-weights-2",
                                  ".removing-weights-2"])  # fmt: skip
def test_leftovers_are_removed_and_nothing_else(tmp_path, name):
    save(tmp_path, 4)
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text("x")
    (tmp_path / "logs").mkdir()
    (tmp_path / ".status.json.0f.tmp").write_text("{")
    remove_leftovers(tmp_path)
    assert entries(tmp_path) == ["checkpoint-4", "logs"]

"""A directory named checkpoint-N is whole, or is known not to be. One process, a fake engine."""

import json
import logging
import os
from dataclasses import replace

import pytest
import torch

from sft_dist import checkpoint
from sft_dist.checkpoint import (
    MANIFEST,
    checkpoint_path,
    damage,
    file_sha256,
    find_checkpoint,
    list_checkpoints,
    read_training_state,
    remove_leftovers,
    remove_old_checkpoints,
    save_checkpoint,
)
from sft_dist.errors import CheckpointError
from sft_dist.train_state import TrainState

STATE = TrainState(
    seed=42, global_batch_size=8, num_examples=100, data_fingerprint="abc", wandb_run_id="run1"
)
FILES = ["engine/shard.bin", "model.safetensors", "tokenizer.json", "training_state.pt"]


class FakeEngine:
    """Writes two small files, or fails at one of them as a full disk would."""

    def __init__(self, content=b"weights", fail_at=None):
        self.content, self.fail_at = content, fail_at

    def export_weights(self, directory):
        self._write(directory / "model.safetensors", "weights")

    def save_state(self, directory):
        directory.mkdir()
        self._write(directory / "shard.bin", "state")

    def _write(self, path, part):
        if part == self.fail_at:
            path.write_bytes(self.content[:3])
            raise OSError(28, "No space left on device")
        path.write_bytes(self.content)


class FakeTokenizer:
    fails = False

    def save_pretrained(self, directory):
        if self.fails:
            raise OSError(28, "No space left on device")
        (directory / "tokenizer.json").write_text("{}")


def save(run_dir, step, *, engine=None, tokenizer=None, keep_last=0, keep=()):
    return save_checkpoint(
        run_dir, replace(STATE, step=step), engine=engine or FakeEngine(),
        tokenizer=tokenizer or FakeTokenizer(), keep_last=keep_last, keep=keep,
    )  # fmt: skip


def steps_in(run_dir):
    return [int(path.name.split("-")[1]) for path in list_checkpoints(run_dir)]


def entries(run_dir):
    return sorted(path.name for path in run_dir.iterdir())


def flip(path, position=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


# Publishing


def test_a_checkpoint_holds_weights_tokenizer_state_optimizer_and_manifest(tmp_path):
    path = save(tmp_path, 4)
    assert path == tmp_path / "checkpoint-4" == checkpoint_path(tmp_path, 4)
    found = sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
    assert found == sorted([*FILES, MANIFEST])
    assert entries(tmp_path) == ["checkpoint-4"]


def test_the_manifest_lists_size_and_sha256_of_every_other_file(tmp_path):
    path = save(tmp_path, 4)
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["step"] == 4
    assert sorted(manifest["files"]) == FILES
    for name, listed in manifest["files"].items():
        assert listed["size"] == (path / name).stat().st_size
        assert listed["sha256"] == file_sha256(path / name)


def test_the_checksum_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_the_training_state_comes_back_and_needs_no_pickle(tmp_path):
    path = save(tmp_path, 4)
    assert read_training_state(path) == replace(STATE, step=4)
    plain = torch.load(path / "training_state.pt", weights_only=True)
    assert plain["step"] == 4


def test_the_name_appears_only_after_everything_is_on_disk(tmp_path, monkeypatch):
    synced, renamed = [], []
    fsync, rename = checkpoint._fsync, os.rename

    def recording_rename(source, target):
        renamed.append((len(synced), os.path.basename(source), os.path.basename(target)))
        assert not damage(source)
        rename(source, target)

    monkeypatch.setattr(checkpoint, "_fsync", lambda path: (synced.append(path), fsync(path)))
    monkeypatch.setattr(checkpoint.os, "rename", recording_rename)
    save(tmp_path, 4)
    ((before, source, target),) = renamed
    assert (source, target) == (".tmp-checkpoint-4", "checkpoint-4")
    names = [str(p.relative_to(tmp_path / source)) for p in synced[:before]]
    assert set(names) >= {*FILES, MANIFEST, "."}
    assert synced[before:] == [tmp_path]  # the new name itself


def test_the_run_directory_is_made_when_it_is_not_there(tmp_path):
    assert save(tmp_path / "a" / "run", 1).is_dir()


def test_what_a_killed_attempt_left_is_not_taken_into_the_checkpoint(tmp_path):
    left = tmp_path / ".tmp-checkpoint-4"
    left.mkdir()
    (left / "stale.bin").write_bytes(b"old")
    assert not (save(tmp_path, 4) / "stale.bin").exists()


# Damage


def test_a_whole_checkpoint_has_no_damage(tmp_path):
    assert damage(save(tmp_path, 4)) == []


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(tmp_path, name):
    path = save(tmp_path, 4)
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[:-1])
    (found,) = damage(path)
    assert found == f"{name} has {len(data) - 1} bytes, expected {len(data)}"


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found(tmp_path, name):
    path = save(tmp_path, 4)
    flip(path / name)
    (found,) = damage(path)
    assert name in found
    assert "checksum" in found


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(tmp_path, name):
    path = save(tmp_path, 4)
    (path / name).unlink()
    assert damage(path) == [f"{name} is missing"]


def test_all_damage_is_told(tmp_path):
    path = save(tmp_path, 4)
    (path / "tokenizer.json").unlink()
    flip(path / "model.safetensors")
    assert len(damage(path)) == 2


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"files": 3}'])
def test_a_manifest_that_is_missing_or_unreadable_is_damage(tmp_path, content):
    path = save(tmp_path, 4)
    (path / MANIFEST).unlink()
    if content is not None:
        (path / MANIFEST).write_text(content)
    (found,) = damage(path)
    assert MANIFEST in found


def test_no_flipped_bit_of_the_manifest_makes_the_check_itself_fail(tmp_path):
    manifest = save(tmp_path, 4) / MANIFEST
    original = manifest.read_bytes()
    for position in range(len(original)):
        flip(manifest, position)
        assert isinstance(damage(tmp_path / "checkpoint-4"), list)
        manifest.write_bytes(original)


# Finding


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
    flip(tmp_path / "checkpoint-12" / "engine" / "shard.bin")
    (tmp_path / "checkpoint-8" / MANIFEST).unlink()
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-4"
    for words in ("checkpoint-12", "engine/shard.bin", "checkpoint-8", MANIFEST):
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


# Retention


def test_the_newest_n_are_kept(tmp_path):
    for step in (2, 4, 6, 8, 10):
        save(tmp_path, step, keep_last=2)
    assert entries(tmp_path) == ["checkpoint-10", "checkpoint-8"]


def test_steps_to_keep_stay_besides_the_newest_n(tmp_path):
    for step in (2, 4, 6, 8, 10):
        save(tmp_path, step, keep_last=2, keep={4})
    assert steps_in(tmp_path) == [4, 8, 10]


def test_a_step_no_longer_kept_goes_at_the_next_save(tmp_path):
    for step, keep in ((2, {2}), (4, {2}), (6, {4}), (8, {4})):
        save(tmp_path, step, keep_last=1, keep=keep)
    assert steps_in(tmp_path) == [4, 8]


def test_0_keeps_all(tmp_path):
    for step in (2, 4, 6):
        save(tmp_path, step, keep_last=0)
    assert steps_in(tmp_path) == [2, 4, 6]


def test_the_one_just_written_is_never_removed(tmp_path):
    """A run resumed from an older checkpoint writes smaller numbers than those that are there."""
    for step in (8, 10):
        save(tmp_path, step)
    save(tmp_path, 4, keep_last=1)
    assert steps_in(tmp_path) == [4, 10]


def test_a_directory_is_renamed_before_its_files_go(tmp_path, monkeypatch):
    for step in (2, 4):
        save(tmp_path, step)
    removed = []
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda path: removed.append(path.name))
    remove_old_checkpoints(tmp_path, keep_last=1, keep=())
    assert removed == [".removing-checkpoint-2"]
    assert steps_in(tmp_path) == [4]


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    save(tmp_path, 4)
    for name in (".tmp-checkpoint-8", ".removing-checkpoint-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "logs").mkdir()
    remove_leftovers(tmp_path)
    assert entries(tmp_path) == ["checkpoint-4", "logs"]


# A step reached twice


def test_a_checkpoint_reached_again_with_other_content_sets_the_old_one_aside(tmp_path):
    save(tmp_path, 4, engine=FakeEngine(b"first"))
    save(tmp_path, 4, engine=FakeEngine(b"second"))
    save(tmp_path, 4, engine=FakeEngine(b"third"))
    contents = {
        str(p.parent.relative_to(tmp_path)): p.read_bytes()
        for p in tmp_path.rglob("model.safetensors")
    }
    assert contents == {
        "checkpoint-4": b"third",
        ".superseded/checkpoint-4.0": b"first",
        ".superseded/checkpoint-4.1": b"second",
    }
    assert damage(tmp_path / "checkpoint-4") == []
    assert steps_in(tmp_path) == [4]


def test_a_damaged_checkpoint_reached_again_is_replaced(tmp_path):
    path = save(tmp_path, 4)
    flip(path / "model.safetensors")
    save(tmp_path, 4)
    assert damage(path) == []


# Failure


@pytest.mark.parametrize("part", ["weights", "state", "tokenizer"])
def test_a_failed_save_leaves_the_older_checkpoints_and_says_what_to_do(tmp_path, part, caplog):
    save(tmp_path, 4)
    tokenizer = FakeTokenizer()
    tokenizer.fails = part == "tokenizer"
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, 8, engine=FakeEngine(fail_at=part), tokenizer=tokenizer, keep_last=1)
    for words in ("checkpoint-8", "No space left on device", "free", "--resume_from_checkpoint"):
        assert words in str(caught.value)
    assert steps_in(tmp_path) == [4]
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-4"


def test_after_a_failed_save_the_next_one_succeeds(tmp_path):
    with pytest.raises(CheckpointError):
        save(tmp_path, 4, engine=FakeEngine(fail_at="state"))
    assert damage(save(tmp_path, 4)) == []
    assert entries(tmp_path) == ["checkpoint-4"]


def test_a_failure_at_a_step_that_is_there_leaves_that_checkpoint_whole(tmp_path):
    save(tmp_path, 4)
    with pytest.raises(CheckpointError):
        save(tmp_path, 4, engine=FakeEngine(b"new", fail_at="weights"))
    assert damage(tmp_path / "checkpoint-4") == []

"""A directory named checkpoint-N is whole, or there is none."""

import errno
import json
import os
from dataclasses import replace

import pytest
import torch

from sft_dist.checkpoint import (
    SavingRanks,
    checkpoint_path,
    damage,
    find_checkpoint,
    list_checkpoints,
    publishing,
    read_training_state,
    write_weights,
)
from sft_dist.checkpoint.layout import MANIFEST
from sft_dist.checkpoint.manifest import file_sha256
from sft_dist.errors import CheckpointError
from tests.checkpoint.fakes import FILES, STATE, Writer, entries, flip, save


def steps_in(run_dir):
    return [int(path.name.split("-")[1]) for path in list_checkpoints(run_dir)]


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


def test_the_training_state_comes_back_and_needs_no_pickle(tmp_path):
    path = save(tmp_path, 4)
    assert read_training_state(path) == replace(STATE, step=4)
    plain = torch.load(path / "training_state.pt", weights_only=True)
    assert plain["step"] == 4


def test_the_name_appears_only_after_everything_is_on_disk(tmp_path, monkeypatch):
    synced, renamed = [], []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def recorded_rename(source, target):
        renamed.append((len(synced), os.path.basename(source), os.path.basename(target)))
        assert not damage(source)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    save(tmp_path, 4)
    ((before, source, target),) = renamed
    assert (source, target) == (".tmp-checkpoint-4", "checkpoint-4")
    names = {os.path.relpath(p, tmp_path / source) for p in synced[:before]}
    assert names >= {*FILES, "engine", "."}
    assert any(name.startswith(f".{MANIFEST}") for name in names)  # its name until it is written
    assert synced[before:] == [str(tmp_path)]  # the new name itself


def test_the_run_directory_is_made_when_it_is_not_there(tmp_path):
    assert save(tmp_path / "a" / "run", 1).is_dir()


def test_what_a_killed_attempt_left_is_not_taken_into_the_checkpoint(tmp_path):
    left = tmp_path / ".tmp-checkpoint-4"
    left.mkdir()
    (left / "stale.bin").write_bytes(b"old")
    assert not (save(tmp_path, 4) / "stale.bin").exists()


def test_weights_alone_are_durable_before_they_have_their_name(tmp_path, monkeypatch):
    renamed, synced = [], []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda d: (synced.append(d), fsync(d)))
    monkeypatch.setattr(os, "rename", lambda a, b: (renamed.append(len(synced)), rename(a, b)))
    path = write_weights(tmp_path / "exports" / "step-3", Writer().model, ranks=SavingRanks())
    assert renamed == [4]  # three files and their directory
    assert entries(path) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert entries(path.parent) == ["step-3"]


# A step reached twice


def test_a_checkpoint_reached_again_with_other_content_sets_the_old_one_aside(tmp_path):
    for content in (b"first", b"second", b"third"):
        save(tmp_path, 4, writer=Writer(content))
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


def test_names_are_changed_one_by_one_where_they_cannot_be_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "exchange", lambda first, second: False)
    for content in (b"first", b"second"):
        save(tmp_path, 4, writer=Writer(content))
    assert (tmp_path / "checkpoint-4/model.safetensors").read_bytes() == b"second"
    assert (tmp_path / ".superseded/checkpoint-4.0/model.safetensors").read_bytes() == b"first"
    assert entries(tmp_path) == [".superseded", "checkpoint-4"]


def test_a_checkpoint_reached_again_with_the_same_content_stays(tmp_path):
    inode = save(tmp_path, 4).stat().st_ino
    assert save(tmp_path, 4).stat().st_ino == inode
    assert entries(tmp_path) == ["checkpoint-4"]


def test_a_damaged_checkpoint_reached_again_is_replaced(tmp_path):
    path = save(tmp_path, 4)
    flip(path / "model.safetensors")
    save(tmp_path, 4)
    assert damage(path) == []


# Failure


@pytest.mark.parametrize("part", ["weights", "state", "tokenizer"])
def test_a_failed_save_leaves_the_older_checkpoints_and_says_what_to_do(tmp_path, part):
    save(tmp_path, 4)
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, 8, writer=Writer(fail_at=part), keep_last=1)
    for words in ("checkpoint-8", "No space left on device", "GiB free", "free space there",
                  "--resume_from_checkpoint"):  # fmt: skip
        assert words in str(caught.value)
    assert entries(tmp_path) == ["checkpoint-4"]  # nothing partial: the disk is full enough
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-4"


def test_after_a_failed_save_the_next_one_succeeds(tmp_path):
    with pytest.raises(CheckpointError):
        save(tmp_path, 4, writer=Writer(fail_at="state"))
    assert damage(save(tmp_path, 4)) == []
    assert entries(tmp_path) == ["checkpoint-4"]


def test_a_failure_at_a_step_that_is_there_leaves_that_checkpoint_whole(tmp_path):
    save(tmp_path, 4)
    with pytest.raises(CheckpointError):
        save(tmp_path, 4, writer=Writer(b"new", fail_at="weights"))
    assert damage(tmp_path / "checkpoint-4") == []


def test_weights_alone_that_cannot_be_written_leave_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="No space left"):
        write_weights(tmp_path / "step-3", Writer(fail_at="weights").model, ranks=SavingRanks())
    assert entries(tmp_path) == []


def test_an_old_checkpoint_that_cannot_be_removed_does_not_fail_the_new_one(
    tmp_path, monkeypatch, caplog
):
    save(tmp_path, 4)

    def refused(path, ignore_errors=False):
        if "removing" in str(path) and not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(publishing.shutil, "rmtree", refused)
    assert damage(save(tmp_path, 8, keep_last=1)) == []
    assert "could not be removed" in caplog.text

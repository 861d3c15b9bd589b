"""A disk that is full, read-only or not ours: real file systems, and what is left on them."""

import os
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sft_dist.checkpoint import damage, find_checkpoint
from sft_dist.config import from_flat
from sft_dist.errors import CheckpointError
from sft_dist.runtime.distributed import Ranks
from sft_dist.saving import Saving
from tests.checkpoint.fakes import STATE, entries
from tests.fake_engine import FakeEngine, FakeTokenizer

KIB = 1024
NOBODY = 65534


class BigEngine(FakeEngine):
    """About a MiB: 64 KiB of weights, three times 256 KiB of optimizer state."""

    def __init__(self):
        super().__init__()
        self.weight = torch.zeros(32 * KIB, dtype=torch.bfloat16)
        self.master, self.exp_avg, self.exp_avg_sq = (torch.zeros(64 * KIB) for _ in range(3))

    def optimizer_state(self):
        state = super().optimizer_state()
        return replace(state, shards={"w": replace(state.shards["w"], numel=64 * KIB)})


@contextmanager
def mounted(directory, options):
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def resize(disk, *, leaving):
    """Leave so many KiB free."""
    found = os.statvfs(disk)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize // KIB
    subprocess.run(["mount", "-o", f"remount,size={used + leaving}k", str(disk)], check=True)


@pytest.fixture
def make():
    def build(run_dir, **settings):
        engine = BigEngine()
        saving = Saving(
            from_flat({"keep_last_n_checkpoints": 0, **settings}),
            engine=engine, tokenizer=FakeTokenizer(), num_parameters=32 * KIB,
            ranks=Ranks(0, 0, 1, torch.device("cpu")), run_dir=run_dir,
            evaluations=SimpleNamespace(submit=lambda step, path: None),
            on_lost_evaluation=lambda step: None,
        )  # fmt: skip

        def save(step, *, export=False):
            engine.steps = step
            state = replace(STATE, step=step)
            if export:
                saving.export(state)
            else:
                saving.checkpoint(state, evaluate=False, known=lambda: ((), {}))
            saving.finish()

        return save

    return build


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("room", [0, 4, 24, 300, 772, 776, 800, 840, 848])
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_and_room_for_the_next(
    tmp_path, make, room, asynchronous
):
    """`room` is what the second checkpoint finds, in KiB: it fails at another file each time."""
    with mounted(tmp_path / "disk", "size=8m") as disk:
        save = make(disk / "run", async_save=asynchronous)
        save(1)
        resize(disk, leaving=room)
        with pytest.raises(CheckpointError) as caught:
            save(2)
        for words in ("checkpoint-2", "No space left on device", "GiB free there",
                      "--keep_last_n_checkpoints", "--resume_from_checkpoint latest"):  # fmt: skip
            assert words in str(caught.value)
        assert entries(disk / "run") == ["checkpoint-1"]
        assert find_checkpoint(disk / "run", "latest").name == "checkpoint-1"
        resize(disk, leaving=4096)
        save(3)
        assert damage(disk / "run" / "checkpoint-3") == []


def test_a_disk_without_room_for_another_file_says_so(tmp_path, make):
    with mounted(tmp_path / "disk", "size=8m,nr_inodes=16") as disk:
        save = make(disk / "run")
        save(1)
        with pytest.raises(CheckpointError, match="No space left on device"):
            save(2)
        assert entries(disk / "run") == ["checkpoint-1"]


def test_a_disk_that_became_read_only_is_told(tmp_path, make):
    with mounted(tmp_path / "disk", "size=8m") as disk:
        save = make(disk / "run")
        save(1)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(CheckpointError, match=r"Read-only file system.*mounted for writing"):
            save(2)
        assert find_checkpoint(disk / "run", "latest").name == "checkpoint-1"


def test_a_directory_that_is_not_ours_is_told(tmp_path, make):
    save = make(tmp_path / "run")
    save(1)
    (tmp_path / "run").chmod(0o555)
    is_root = os.geteuid() == 0
    try:
        if is_root:  # who may write anywhere
            for path in (tmp_path, *tmp_path.parents[:2]):
                path.chmod(0o755)
            os.seteuid(NOBODY)
        with pytest.raises(CheckpointError, match=r"Permission denied.*the right to write"):
            save(2)
    finally:
        if is_root:
            os.seteuid(0)
        (tmp_path / "run").chmod(0o755)
    assert damage(tmp_path / "run" / "checkpoint-1") == []


def test_weights_for_an_evaluation_that_do_not_fit_leave_nothing(tmp_path, make):
    with mounted(tmp_path / "disk", "size=40k") as disk:
        save = make(disk)
        with pytest.raises(CheckpointError, match="No space left on device"):
            save(1, export=True)
        assert list(disk.rglob("*")) == [disk / ".exports"]

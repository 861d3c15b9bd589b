import shutil

from sft_dist.reporting.checkpoints import read_checkpoints
from tests.reporting.made_runs import checkpoint


def test_checkpoints_are_told_in_the_order_of_their_steps(tmp_path):
    for step in (1000, 50, 200):
        checkpoint(tmp_path, step)
    (tmp_path / ".tmp-checkpoint-300").mkdir()
    assert [c.step for c in read_checkpoints(tmp_path)] == [50, 200, 1000]


def test_missing_and_shortened_files_are_faults(tmp_path):
    directory = checkpoint(tmp_path, 50)
    (directory / "config.json").unlink()
    (directory / "model.safetensors").write_bytes(b"x")
    (found,) = read_checkpoints(tmp_path)
    assert sorted(found.faults) == [
        "config.json is missing", "model.safetensors has 1 bytes, expected 7",
    ]  # fmt: skip


def test_optimizer_state_that_retention_took_is_no_fault(tmp_path):
    shutil.rmtree(checkpoint(tmp_path, 50) / "engine")
    (found,) = read_checkpoints(tmp_path)
    assert not found.has_optimizer_state
    assert not found.faults


def test_a_checkpoint_without_manifest_says_so(tmp_path):
    (checkpoint(tmp_path, 50) / "manifest.json").write_text("[]")
    (found,) = read_checkpoints(tmp_path)
    assert found.faults == ["manifest.json is missing or unreadable"]

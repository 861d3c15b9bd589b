"""Checkpoints of a few small files, written by one process: what is tested is who names them."""

import errno
import os
from dataclasses import replace

from sft_dist.checkpoint import Contents, Retention, SavingRanks, write_checkpoint
from sft_dist.train_state import TrainState

STATE = TrainState(
    seed=42, global_batch_size=8, num_examples=100, data_fingerprint="abc", wandb_run_id="run1"
)
FILES = [
    "config.json", "engine/.metadata", "engine/__0_0.distcp", "model.safetensors",
    "tokenizer.json", "training_state.pt",
]  # fmt: skip


class Writer:
    """Writes the model and the optimizer state, or fails at one of them as a full disk would."""

    def __init__(self, content=b"weights", fail_at=None, error=errno.ENOSPC):
        self.content, self.fail_at, self.error = content, fail_at, error

    def model(self, directory):
        (directory / "config.json").write_text("{}")
        self._write(directory / "model.safetensors", "weights")
        self._write(directory / "tokenizer.json", "tokenizer")

    def engine(self, directory):
        directory.mkdir()
        (directory / ".metadata").write_bytes(b"what lies where")
        self._write(directory / "__0_0.distcp", "state")

    def _write(self, path, part):
        if part == self.fail_at:
            path.write_bytes(self.content[:3])
            raise OSError(self.error, os.strerror(self.error), str(path))
        path.write_bytes(self.content)


def save(run_dir, step, *, writer=None, keep_last=0, keep=(), keep_weights=()):
    writer = writer or Writer()
    contents = Contents(replace(STATE, step=step), writer.model, writer.engine)
    retention = Retention(keep_last, keep, keep_weights)
    return write_checkpoint(run_dir, contents, ranks=SavingRanks(), retention=retention)


def entries(directory):
    return sorted(path.name for path in directory.iterdir())


def flip(path, position=0, bit=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(bytes(data))

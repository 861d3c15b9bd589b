"""Checkpoints: written under a temporary name, made durable, listed in a manifest, renamed.

A directory named `checkpoint-N` is whole. It is an ordinary Hugging Face model directory with
`training_state.pt`, the optimizer state in `engine/`, and `manifest.json` (sizes and SHA-256).
"""

from sft_dist.checkpoint.agreement import SavingRanks
from sft_dist.checkpoint.background import InBackground, Outcome
from sft_dist.checkpoint.finding import find_checkpoint, read_training_state
from sft_dist.checkpoint.layout import (
    checkpoint_path,
    checkpoint_step,
    list_checkpoints,
    list_weights,
)
from sft_dist.checkpoint.manifest import damage
from sft_dist.checkpoint.publishing import Contents, write_checkpoint, write_weights
from sft_dist.checkpoint.retention import (
    Retention,
    remove_leftovers,
    remove_old_checkpoints,
    share_weights,
    what_to_keep,
)
from sft_dist.checkpoint.snapshot import Snapshot, memory_for_snapshots, take_snapshot

__all__ = [
    "Contents",
    "InBackground",
    "Outcome",
    "Retention",
    "SavingRanks",
    "Snapshot",
    "checkpoint_path",
    "checkpoint_step",
    "damage",
    "find_checkpoint",
    "list_checkpoints",
    "list_weights",
    "memory_for_snapshots",
    "read_training_state",
    "remove_leftovers",
    "remove_old_checkpoints",
    "share_weights",
    "take_snapshot",
    "what_to_keep",
    "write_checkpoint",
    "write_weights",
]

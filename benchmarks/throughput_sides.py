"""The sides of `train_throughput.py`: which settings each has, and the command that runs it.

Not a command. A peer's side is a way to run it that its users have; its type of numbers is chosen
among `PEER_DTYPES` by trial, so that each is measured at its best.
"""

import json
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from throughput_work import Work

HERE = Path(__file__).resolve().parent
PEER_SCRIPT = HERE / "throughput_peer.py"
OUR_SCRIPT = HERE / "throughput_ours.py"
PEER_DTYPES = ("autocast", "bfloat16", "float32")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Settings of a peer. `meaning` is for the reader of the results."""

    meaning: str
    library: str = "trl"
    single: bool = False
    """One example a forward pass instead of `--batch_size`."""
    checkpointing: bool = False
    padding_free: bool = False
    sorted: bool = False
    loss_type: str = "nll"


PEERS: dict[str, Peer] = {
    "trl-default": Peer(meaning="padded batch, all defaults (checkpointing)", checkpointing=True),
    "trl-padded": Peer(meaning="padded batch, no checkpointing"),
    "trl-sorted": Peer(meaning="the same, each step's examples sorted by length", sorted=True),
    "trl-single": Peer(meaning="one example at a time, no checkpointing", single=True),
    "trl-single-dft": Peer(
        meaning="the same with its other loss, another objective", single=True, loss_type="dft"
    ),
    "trl-padding-free": Peer(meaning="a batch as one row, no checkpointing", padding_free=True),
    "hf-padded": Peer(meaning="plain Trainer, padded batch", library="transformers"),
    "hf-single": Peer(
        meaning="plain Trainer, one example at a time", library="transformers", single=True
    ),
}

OURS: dict[str, tuple[str, ...]] = {
    "ours-torch": ("--engine", "torch"),
    "ours-deepspeed": ("--engine", "deepspeed", "--ds_config", "zero2"),
    "ours-fsdp": ("--engine", "fsdp"),
}
"""Name -> flags of `sft_dist.train`."""

OTHER_OBJECTIVE = frozenset(name for name, peer in PEERS.items() if peer.loss_type != "nll")
"""Their loss is not ours and is not compared."""


def dtypes_to_try(side: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The types of numbers among which a peer's fastest is looked for."""
    default = side == "trl-default" and "autocast" in allowed
    return ("autocast",) if default else allowed


def our_command(
    name: str, work: Work, directory: Path, *, profile_step: int | None = None
) -> list[str]:
    """The process that runs one of `OURS` and leaves `result.json` in `directory`."""
    profile = ["--profile_step", str(profile_step)] if profile_step else []
    flags = [*work.flags(directory / "run"), *OURS[name]]
    return [
        sys.executable, str(OUR_SCRIPT), str(directory / "result.json"), *profile, "--", *flags
    ]  # fmt: skip


def peer_command(name: str, work: Work, directory: Path, *, dtype: str) -> list[str]:
    """The process that runs one of `PEERS` and leaves `result.json` in `directory`."""
    peer = PEERS[name]
    settings = {
        **asdict(peer),
        "batch_size": 1 if peer.single else work.batch_size,
        "global_batch_size": work.global_batch_size,
        "learning_rate": work.learning_rate,
        "model": str(work.model),
        "batches": str(work.batches),
        "output_dir": str(directory / "run"),
        "dtype": dtype,
        "attention": peer_attention(dtype),
    }
    path = directory / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return [sys.executable, str(PEER_SCRIPT), str(path), str(directory / "result.json")]


def peer_attention(dtype: str) -> str:
    """The fastest attention that the peers can have here; flash-attn takes no float32."""
    flash = torch.cuda.is_available() and find_spec("flash_attn") is not None
    return "flash_attention_2" if flash and dtype != "float32" else "sdpa"

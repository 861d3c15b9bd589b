"""What the launcher says about the ranks, before any process group exists. No torch."""

import os


def world_size_from_environment() -> int:
    """Number of ranks; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_from_environment() -> int:
    """This process's rank; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))

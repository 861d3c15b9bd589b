"""Which GPUs evaluation gets: names of devices in, `CUDA_VISIBLE_DEVICES` of a worker out."""

import os
from collections.abc import Sequence

SHARED_MEMORY = 0.3
OWN_MEMORY = 0.9
"""Shares of a GPU's memory: beside a rank of training, and on a GPU without one."""


def gpus() -> list[str]:
    """Names of the GPUs that this process sees; none is touched."""
    import torch

    return visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count())


def visible_devices(variable: str | None, count: int) -> list[str]:
    """Names of this process's GPUs: the entries of `CUDA_VISIBLE_DEVICES`, else 0 to count - 1.

    Entries may be numbers or UUIDs; what follows an invalid one is invisible to CUDA too.
    """
    if variable is None:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in variable.split(",")]
    end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
    return names[: min(end, count)]


def reserved_fault(devices: Sequence[str], *, ranks: int, wanted: int) -> str | None:
    """Why `wanted` of a node's GPUs cannot be kept from its `ranks`; None when they can.

    `ranks` are those on the node of rank 0; torch gives them the first devices.
    """
    if not devices:
        return (
            "--eval_placement reserved: expected a GPU to reserve, found none; take shared, or "
            "after, on a machine without GPUs"
        )
    if ranks + wanted > len(devices):
        return (
            f"--eval_placement reserved: expected {wanted} of {len(devices)} GPUs without a rank, "
            f"found {ranks} ranks on this node; start {max(0, len(devices) - wanted)} "
            "(--nproc_per_node, NPROC_PER_NODE), or lower --eval_gpus"
        )
    return None


def reserved_devices(devices: Sequence[str], wanted: int) -> list[str]:
    """The last `wanted` devices, one for each worker."""
    return list(devices[len(devices) - wanted :])


def shared_out(devices: Sequence[str], size: int) -> list[str]:
    """`CUDA_VISIBLE_DEVICES` of each worker that gets `size` of the devices."""
    return [",".join(devices[i : i + size]) for i in range(0, len(devices) - size + 1, size)]

"""What the launcher says about the ranks, before any process group exists. No torch."""

import os
import socket
from contextlib import ExitStack, suppress


def world_size_from_environment() -> int:
    """Number of ranks; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size_from_environment() -> int:
    """Number of ranks on this node; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def on_first_node() -> bool:
    """Whether this process is on the node of rank 0; true without torchrun."""
    return os.environ.get("GROUP_RANK", "0") == "0"


def rank_from_environment() -> int:
    """This process's rank; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def free_port() -> int:
    """A port of this host that nobody listens on now, for ranks that no launcher gave one."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def let_waiting_threads_sleep() -> None:
    """Where training and evaluation share a host: call before torch is loaded.

    OpenMP's threads spin while they wait for one another, on cores that the other process needs.
    An evaluation of 256 answers beside two ranks on two cores: 11 processor-seconds, asleep 1.2.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def tell_launcher(error: BaseException) -> None:
    """Under torchrun: leave the error where it looks, so that the first one is what it shows last.

    Told once: torchrun goes by the time of it. torch is loaded here, if it was not.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None or (os.path.exists(path) and os.path.getsize(path) > 0):
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    with suppress(OSError):  # a full disk must not hide the error itself
        get_error_handler().record_exception(error)

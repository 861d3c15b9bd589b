"""Host memory for a copy of the training state: taken once, page-locked on CUDA, used again.

Taken as a few large anonymous mappings: torch's own page-locked allocator rounds every piece up to
a power of two, and memory that is touched for the first time is several times slower than memory
that is there.
"""

import logging
import math
import mmap
import threading
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

ALIGNMENT = 64
BLOCK = 1 << 26
SHARE = 0.8
"""Of the memory that is free, the share that copies of all ranks on a host may take."""
CGROUP = Path("/sys/fs/cgroup")


class HostMemory:
    """Named places for tensors. One thread at a time stores; nothing is ever given back."""

    def __init__(self, device: torch.device) -> None:
        """`device` is the one that is copied from."""
        self._device = device
        self._blocks: list[mmap.mmap] = []
        self._used = 0
        self._places: dict[str, Tensor] = {}
        self._reserving: threading.Thread | None = None

    @property
    def nbytes(self) -> int:
        """Bytes taken so far."""
        return sum(len(block) for block in self._blocks)

    def reserve(self, nbytes: int) -> None:
        """Take memory ahead, on a thread of its own: the first copy is then as fast as the next."""
        work = threading.Thread(target=self._grow, args=(nbytes,), name="reserve", daemon=True)
        self._reserving = work
        work.start()

    def store(self, key: str, tensor: Tensor) -> Tensor:
        """A copy of `tensor`, in the memory that the last copy under `key` had."""
        self.settle()
        place = self._places.get(key)
        if place is None or (place.shape, place.dtype) != (tensor.shape, tensor.dtype):
            place = self._places[key] = self._take(tensor)
        return place.copy_(tensor.detach())

    def settle(self) -> None:
        """Wait for the memory that is being taken.

        Before the process ends, too: an interpreter that ends while a thread is inside torch
        unwinds that thread through C++, which aborts the process.
        """
        if self._reserving is not None:
            self._reserving.join()
            self._reserving = None

    def _take(self, tensor: Tensor) -> Tensor:
        """Room for a tensor like this one, with a storage of its own (DCP copies views)."""
        size = tensor.numel() * tensor.element_size()
        if size == 0:
            return torch.empty_like(tensor, device="cpu")
        if not self._blocks or self._used + size > len(self._blocks[-1]):
            self._grow(max(BLOCK, size))
        block, start = self._blocks[-1], self._used
        self._used = _aligned(start + size)
        flat = torch.frombuffer(block, dtype=tensor.dtype, count=tensor.numel(), offset=start)
        return flat.view(tensor.shape)

    def _grow(self, nbytes: int) -> None:
        block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            block.madvise(mmap.MADV_HUGEPAGE)
        whole = torch.frombuffer(block, dtype=torch.uint8)
        whole.zero_()  # touched now, not while training waits for the first copy
        if self._device.type == "cuda":
            _lock_pages(whole, self._device)
        self._blocks.append(block)
        self._used = 0


def needed_bytes(tensors: Iterable[Tensor]) -> int:
    """Room that `store` takes for copies of these."""
    return sum(_aligned(tensor.numel() * tensor.element_size()) for tensor in tensors)


def fits_in_host_memory(nbytes: int) -> bool:
    """Whether this host can take `nbytes` more; True where nobody knows."""
    free = _free_bytes()
    return free is None or nbytes <= SHARE * free


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * mmap.PAGESIZE


def _free_bytes() -> int | None:
    """What Linux calls available, or less when a cgroup (a Slurm job, a container) sets a limit."""
    found = [value for value in (_available(), _left_in_cgroup()) if value is not None]
    return min(found) if found else None


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return int(kib) * 1024


def _left_in_cgroup() -> int | None:
    """Of cgroup v2; file cache counts as used there and can be had back."""
    try:
        directory = CGROUP / _own_cgroup()
        limit = (directory / "memory.max").read_text().strip()
        used = int((directory / "memory.current").read_text())
        fields = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return int(limit) - used + int(fields.get("inactive_file", 0))


def _own_cgroup() -> str:
    return Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")


def _lock_pages(whole: Tensor, device: torch.device) -> None:
    """Page-locked memory is copied to at the full speed of the bus."""
    torch.cuda.set_device(device)  # of this thread
    code = torch.cuda.cudart().cudaHostRegister(whole.data_ptr(), whole.numel(), 0)
    if int(code) != 0:
        logger.warning("host memory is not page-locked (CUDA error %s): saving stalls longer", code)


def _aligned(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT

"""What both sides' processes of `train_throughput.py` note: step times and peak memory.

Not a command. One definition for both sides, so that neither is timed more kindly.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch


class StepRecorder:
    """Wall time from the end of one optimizer step to the end of the next, logging included.

    The first entry starts at `begin` and holds what is paid once (first kernels, allocations).
    """

    def __init__(self) -> None:
        self.step_seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        """CPU time of all threads: less than threads x wall where others had the cores."""
        self._last: tuple[float, float] | None = None

    def begin(self) -> None:
        """The first step starts now; later calls do nothing."""
        if self._last is None:
            self._last = _now()

    def step_ended(self) -> None:
        """An optimizer step is done."""
        assert self._last is not None, "begin was not called"
        now = _now()
        self.step_seconds.append(now[0] - self._last[0])
        self.cpu_seconds.append(now[1] - self._last[1])
        self._last = now

    def write(self, path: Path, **more: Any) -> None:
        """Times, peak memory up to now and whatever else is known of the run, as JSON."""
        times = {"step_seconds": self.step_seconds, "cpu_seconds": self.cpu_seconds}
        record = {**times, **peak_memory(), **more}
        path.write_text(json.dumps(record), encoding="utf-8")


def peak_memory() -> dict[str, int]:
    """Most bytes held so far: by the process, and by its tensors on the GPU (0 without one).

    `VmHWM` and not `ru_maxrss`: the latter survives exec and would count the parent's memory.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    cuda = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"peak_rss_bytes": 1024 * int(line.split()[1]), "peak_cuda_bytes": cuda}


def _now() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()

"""The machine under `train_throughput.py`: what it is, and how fast it multiplies matrices.

    python throughput_machine.py     # prints FLOP/s by dtype as JSON

The rate is that of one large product, the best of several: what a training step can approach and
not exceed. float32 is measured without TF32.
"""

import json
import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "deepspeed", "flash-attn")


def main() -> None:
    rates = {name: matrix_rate(getattr(torch, name)) for name in ("bfloat16", "float32")}
    print(json.dumps(rates))


def matrix_rate(dtype: torch.dtype, *, seconds: float = 2.0) -> float:
    """FLOP/s of a square matrix product, the fastest of those that fit into `seconds`."""
    cuda = torch.cuda.is_available()
    size = 8192 if cuda else 2048
    torch.backends.cuda.matmul.allow_tf32 = False
    left = torch.randn(size, size, device="cuda" if cuda else "cpu").to(dtype)
    right = left.t().contiguous()
    left @ right
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        fastest = min(fastest, _seconds_of_product(left, right))
    return 2 * size**3 / fastest


def _seconds_of_product(left: torch.Tensor, right: torch.Tensor) -> float:
    if left.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    left @ right
    if left.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def describe_machine(threads: int) -> dict[str, Any]:
    """Hardware, software and commit, as far as they can be told."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else f"{cpu_name()}, {threads} threads",
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "python": platform.python_version(),
        "commit": commit(),
    }


def results_path(directory: Path, benchmark: str, machine: dict[str, Any]) -> Path:
    """A file a run, named after benchmark, hardware and time. `machine`: of `describe_machine`."""
    name = re.sub(r"\([^)]*\)", "", machine["gpu"] or machine["cpu"]).lower()  # not Intel's (R)
    moment = time.strftime("%Y%m%d-%H%M%S")
    return directory / f"{benchmark}-{'-'.join(name.split()[:3])}-{moment}.json"


def package_versions(peer_path: str | None) -> dict[str, str | None]:
    """Versions of what is measured; the peers' as found under `peer_path` too."""
    found = {name: _version(name) for name in PACKAGES}
    for info in Path(peer_path).glob("*.dist-info") if peer_path else ():
        name, _, number = info.name.removesuffix(".dist-info").partition("-")
        if name in found:
            found[name] = number
    return found


def cpu_name() -> str:
    """Model of the CPU as the kernel calls it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def commit() -> str:
    """Short hash of the checked-out commit, with `+changes` when files differ from it."""
    here = Path(__file__).resolve().parent
    try:
        short = _git("rev-parse", "--short", "HEAD", cwd=here)
        return short + ("+changes" if _git("status", "--porcelain", "-uno", cwd=here) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str, cwd: Path) -> str:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()

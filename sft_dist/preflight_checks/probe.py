"""The probe: one process beside each rank that runs the engine on the longest batch.

Every rank of the launch starts one, with the same ranks and another port, so it is sharded as the
job will be.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class ProbeResult:
    """What one rank's process was measured to take."""

    peak: int
    """Bytes above the baseline, in a step after the first."""
    build_peak: int
    """The same while the engine was built."""
    step_seconds: float
    error: str = ""
    """Why there is no measurement: the end of the process's output."""


def probe_rank(
    settings: dict[str, Any],
    micro_batches: Sequence[Sequence[tuple[int, int]]],
    *,
    model_dir: Path,
    stop_token_id: int,
    world_size: int,
    port: int,
    rank: Mapping[str, str] | None = None,
) -> ProbeResult:
    """Run this rank's process and wait for it.

    Args:
        settings: all flags by name.
        micro_batches: (tokens, prompt tokens) of each example, by micro-batch, of this rank.
        model_dir: of the base model.
        stop_token_id: see `load_model`.
        world_size: number of ranks that do this at the same time.
        port: where they meet, on the host of rank 0.
        rank: the variables of this rank; unset: those of this process.
    """
    spec = {
        "config": settings,
        "micro_batches": [list(map(list, part)) for part in micro_batches],
        "model_dir": str(model_dir),
        "stop_token_id": stop_token_id,
        "world_size": world_size,
    }
    defaults = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    # Without torchrun's variables: its store would be asked for a rendezvous, and it is taken.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TORCHELASTIC")}
    environment = {**defaults, **inherited, **(rank or {}), "MASTER_PORT": str(port)}
    with tempfile.TemporaryDirectory(prefix="sft-probe-") as folder:
        files = [Path(folder, name) for name in ("spec.json", "result.json")]
        files[0].write_text(json.dumps(spec))
        command = [sys.executable, "-m", "sft_dist.preflight_checks.probe_worker", *map(str, files)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired:
            return ProbeResult(0, 0, 0.0, f"no end after {TIMEOUT_SECONDS} seconds")
        if not files[1].exists():
            return ProbeResult(0, 0, 0.0, _why(done))
        result = json.loads(files[1].read_text())
    peaks = result["peaks"]
    return ProbeResult(peaks["step 2"], peaks["build"], result["step_seconds"])


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -9:
        return "killed (signal 9): the host has not enough memory"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"

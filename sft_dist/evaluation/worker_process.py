"""The worker as a child of rank 0: its environment, its log, its restarts, its end."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

WORKER_MODULE = "sft_dist.evaluation.worker"
LOG_FILE = "logs/evaluation_worker.log"

_TORCHRUN = {
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
    "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS",
}  # fmt: skip
_TORCHRUN_PREFIXES = ("TORCHELASTIC_", "TORCH_NCCL_", "PET_")
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is started with; the meaning of each is in `worker.py`."""

    backend: str = "vllm"
    warm_model: str | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.9
    enforce_eager: bool = False
    tensor_parallel: int = 1
    eval_batch_size: int = 16
    nice: int = 0
    stale_seconds: float = 120.0
    cuda_visible_devices: str | None = None
    self_test_cache: str | None = None

    def arguments(self) -> list[str]:
        """The worker's command line, without the run directory."""
        flags = [
            f"--backend={self.backend}",
            f"--gpu_memory_utilization={self.gpu_memory_utilization}",
            f"--eval_batch_size={self.eval_batch_size}",
            f"--stale_seconds={self.stale_seconds}",
            f"--nice={self.nice}",
            f"--tensor_parallel={self.tensor_parallel}",
        ]
        flags += [f"--warm_model={self.warm_model}"] if self.warm_model else []
        flags += [f"--max_model_len={self.max_model_len}"] if self.max_model_len else []
        flags += [f"--self_test_cache={self.self_test_cache}"] if self.self_test_cache else []
        return flags + (["--enforce_eager"] if self.enforce_eager else [])


def scrubbed_environment(
    environment: Mapping[str, str], cuda_visible_devices: str | None = None
) -> dict[str, str]:
    """`environment` without what torchrun put there for the ranks.

    TORCHELASTIC_USE_AGENT_STORE makes any rendezvous a client of a store that is not there,
    LOCAL_RANK selects a device, OMP_NUM_THREADS=1 halves decoding on CPU.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _TORCHRUN and not name.startswith(_TORCHRUN_PREFIXES)
    }
    paths = [str(_PACKAGE_ROOT), environment.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if cuda_visible_devices is not None:
        kept["CUDA_VISIBLE_DEVICES"] = cuda_visible_devices
    return kept


class WorkerProcess:
    """Keeps one worker alive. Call `tend` now and then; it never waits.

    A worker that ends is started again after a pause that doubles, until `max_deaths` in a row;
    `note_progress` (something was published) breaks the row.
    """

    def __init__(
        self,
        run_dir: Path,
        options: WorkerOptions,
        *,
        on_death: Callable[[str, str], None],
        command: Sequence[str] = (sys.executable, "-m", WORKER_MODULE),
        max_deaths: int = 4,
        first_pause_seconds: float = 2.0,
        log_file: str = LOG_FILE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_death` gets the id of a worker that is certainly dead, and why."""
        self._log_path = run_dir / log_file
        self._run_dir = run_dir
        self._options = options
        self._on_death = on_death
        self._command = list(command)
        self._max_deaths = max_deaths
        self._first_pause = first_pause_seconds
        self._clock = clock
        self._deaths = 0
        self._start_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._worker_id = ""
        self.failure: str | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the living worker; None between two lives."""
        return self._process.pid if self._process is not None else None

    def tend(self) -> None:
        """Notice a death, start the next life when it is due. Sets `failure` after the last."""
        if self._process is not None and self._process.poll() is not None:
            self._bury(self._process.returncode)
        if self._process is None and self.failure is None and self._clock() >= self._start_at:
            self._start()

    def note_progress(self) -> None:
        """The worker works: earlier deaths no longer count."""
        self._deaths = 0

    def stop(self, timeout_seconds: float = 15.0) -> None:
        """Close its standard input, wait, then kill its process group."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("the evaluation worker did not leave in %g s: killed", timeout_seconds)
        _kill_group(process)
        self._on_death(self._worker_id, "the worker was stopped")

    def _start(self) -> None:
        self._worker_id = f"worker-{uuid.uuid4().hex[:8]}"
        arguments = [str(self._run_dir), *self._options.arguments(), "--worker_id", self._worker_id]
        try:
            self._process = self._launch([*self._command, *arguments])
        except OSError as error:
            self._plan_next(f"the evaluation worker cannot be started: {error}")
        else:
            logger.info("evaluation worker started, pid %d", self._process.pid)

    def _launch(self, command: list[str]) -> "subprocess.Popen[bytes]":
        path = self._log_path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=scrubbed_environment(os.environ, self._options.cuda_visible_devices),
                start_new_session=True,  # a Ctrl-C meant for the trainer must not reach it
            )

    def _bury(self, code: int) -> None:
        process, self._process = self._process, None
        assert process is not None
        _kill_group(process)
        reason = f"the evaluation worker ended with {_exit_text(code)}: {self._last_words()}"
        logger.warning("%s (log: %s)", reason, self._log_path)
        self._on_death(self._worker_id, reason)
        self._plan_next(reason)

    def _plan_next(self, reason: str) -> None:
        self._deaths += 1
        if self._deaths >= self._max_deaths:
            self.failure = f"{reason}; {self._deaths} times, see {self._log_path}"
        self._start_at = self._clock() + self._first_pause * 2 ** (self._deaths - 1)

    def _last_words(self) -> str:
        """The last line of the log: of a Python error, its message."""
        with self._log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _exit_text(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End what the worker may have left behind in its session, and the pipe to it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()

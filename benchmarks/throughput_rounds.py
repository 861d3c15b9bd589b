"""Runs the sides of `train_throughput.py`: a process each, alternating, one at a time.

Not a command.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import throughput_machine
from throughput_sides import (
    HERE,
    OURS,
    PEER_SCRIPT,
    PEERS,
    dtypes_to_try,
    our_command,
    peer_command,
)
from throughput_work import Steps, Work, first_steps


class SideFailedError(RuntimeError):
    """A side's process ended without a result; the message is the end of what it said."""


@dataclass(frozen=True)
class Measurement:
    """What one process of one side reported."""

    side: str
    dtype: str
    round: int
    step_seconds: list[float]
    cpu_seconds: list[float]
    losses: list[float]
    target_tokens: int
    row_tokens: int | None
    """Places in the rows that were computed, padding too; None: as many as there are tokens."""
    peak_rss_bytes: int
    peak_cuda_bytes: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How processes are started here: equally for every side but for the peers' packages."""

    threads: int
    timeout_seconds: float
    peer_path: str | None
    directory: Path

    def run(self, command: Sequence[str], directory: Path) -> dict[str, Any]:
        """The `result.json` that a side's process leaves.

        Raises:
            SideFailedError: when it leaves none or takes too long.
        """
        log = directory / "log.txt"
        try:
            with log.open("w") as output:
                subprocess.run(
                    command, stdout=output, stderr=subprocess.STDOUT, cwd=directory, check=True,
                    env=self._environment(command), timeout=self.timeout_seconds,
                )  # fmt: skip
        except subprocess.SubprocessError as error:
            said = log.read_text(errors="replace")[-1500:]
            raise SideFailedError(f"{said}\n{type(error).__name__}") from error
        return json.loads((directory / "result.json").read_text(encoding="utf-8"))

    def matrix_rate(self) -> dict[str, float]:
        """FLOP/s by dtype, measured now in a process of its own."""
        command = [sys.executable, throughput_machine.__file__]
        done = subprocess.run(
            command, env=self._environment(command), check=True, capture_output=True, text=True
        )
        return json.loads(done.stdout)

    def new_directory(self) -> Path:
        """An empty directory for one process."""
        return Path(tempfile.mkdtemp(dir=self.directory))

    def _environment(self, command: Sequence[str]) -> dict[str, str]:
        paths = [str(HERE.parent)]
        if str(PEER_SCRIPT) in command and self.peer_path:
            paths.insert(0, str(Path(self.peer_path).resolve()))
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": str(self.threads),
            # One device: with several, the peers' trainers would turn to DataParallel.
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }


@dataclass
class Rounds:
    """The measurements of a run, as they come in."""

    work: Work
    steps: Steps
    machine: Machine
    sides: Sequence[str]
    dtypes: dict[str, str] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    matrix_rates: list[dict[str, float]] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def choose_dtypes(self, allowed: tuple[str, ...], num_steps: int) -> None:
        """Give each side its type of numbers: a peer the one in which it is fastest."""
        path = first_steps(self.work, num_steps, self.machine.directory / "trial.json")
        work = dataclasses.replace(self.work, num_steps=num_steps, batches=path)
        for side in self.sides:
            dtypes = (work.dtype,) if side in OURS else dtypes_to_try(side, allowed)
            seconds = dict(self._trials(side, dtypes, work)) if len(dtypes) > 1 else {dtypes[0]: 0}
            if seconds:
                self.dtypes[side] = min(seconds, key=lambda dtype: seconds[dtype])
            else:
                self.failures[side] = "it fails with every type of numbers, see trials"

    def run(self, count: int) -> None:
        """Measure every side `count` times; one that fails is left out from then on."""
        for number in range(1, count + 1):
            self.loads.append(os.getloadavg()[0])
            self.matrix_rates.append(self.machine.matrix_rate())
            turn = (number - 1) % len(self.sides)
            for side in [*self.sides[turn:], *self.sides[:turn]]:
                if side not in self.failures:
                    self._measure(side, number)

    def profile(self) -> dict[str, Any]:
        """One more run of the first of our sides, its last step profiled."""
        side = next(side for side in self.sides if side in OURS)
        directory = self.machine.new_directory()
        command = our_command(side, self.work, directory, profile_step=self.work.num_steps)
        return {"side": side, **self.machine.run(command, directory)["profile"]}

    def _trials(self, side: str, dtypes: Sequence[str], work: Work) -> Iterator[tuple[str, float]]:
        for dtype in dtypes:
            try:
                result = self._result(side, dtype, work)
            except SideFailedError as error:  # a type that the peer cannot run is no fault
                self.trials.append({"side": side, "dtype": dtype, "failed": last_lines(str(error))})
                _say(f"trial: {side} {dtype}: failed")
                continue
            self.trials.append({"side": side, "dtype": dtype, **result})
            seconds = result["step_seconds"][-1]
            _say(f"trial: {side} {dtype}: {seconds:.2f} s a step")
            yield dtype, seconds

    def _measure(self, side: str, number: int) -> None:
        dtype = self.dtypes[side]
        try:
            result = self._result(side, dtype, self.work)
        except SideFailedError as error:
            self.failures[side] = str(error)
            _say(f"round {number}: {side}: failed")
            return
        names = {f.name for f in dataclasses.fields(Measurement)}
        known = {name: value for name, value in result.items() if name in names}
        self.measurements.append(Measurement(side=side, dtype=dtype, round=number, **known))
        speed = self.steps.rate(self.steps.tokens, result["step_seconds"])
        _say(f"round {number}: {side} {dtype}: {speed:,.1f} tokens/s")

    def _result(self, side: str, dtype: str, work: Work) -> dict[str, Any]:
        directory = self.machine.new_directory()
        if side in PEERS:
            command = peer_command(side, work, directory, dtype=dtype)
        else:
            command = our_command(side, work, directory)
        return self.machine.run(command, directory)


def last_lines(said: str) -> str:
    """The end of what a process said, short enough for the results."""
    return "\n".join(line.strip()[:200] for line in said.strip().splitlines()[-2:])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

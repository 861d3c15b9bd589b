"""Our side of `train_throughput.py`: `sft_dist.train` as a user runs it, with a clock in it.

    python throughput_ours.py RESULT.json [--profile_step N] -- FLAGS OF sft_dist.train

`sft_dist.train.main` itself runs; the clock stands at the end of `TrainingLoop.step`. After the
last step the process ends at once: the peers write no checkpoint either, and what saving costs is
not training's. Losses and what the run itself says of its speed come from its `metrics.jsonl`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from throughput_recorder import StepRecorder

from sft_dist import loop, train
from sft_dist.tracking.record import last_by, read_rows

TOP_OPERATIONS = 25


def main(argv: Sequence[str]) -> None:
    split = argv.index("--")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--profile_step", type=int, help="profile this step, counted from 1")
    own, flags = parser.parse_args(argv[:split]), list(argv[split + 1 :])
    run_dir = Path(flags[flags.index("--output_dir") + 1])
    num_steps = int(flags[flags.index("--max_steps") + 1])

    def finish(recorder: StepRecorder, profile: dict[str, Any]) -> None:
        write_result(own.result, run_dir, recorder, profile)
        os._exit(0)

    put_clock_in(num_steps, own.profile_step, finish)
    train.main(flags)


def put_clock_in(
    num_steps: int,
    profile_step: int | None,
    finish: Callable[[StepRecorder, dict[str, Any]], None],
) -> None:
    """Time every step of the loop, profile one of them; `finish` is called after the last."""
    recorder, plain_step = StepRecorder(), loop.TrainingLoop.step
    profile: dict[str, Any] = {}

    def step(self: loop.TrainingLoop, state: Any) -> Any:
        recorder.begin()
        number = len(recorder.step_seconds) + 1
        with profiled(profile) if number == profile_step else nullcontext():
            state = plain_step(self, state)
        recorder.step_ended()
        if number == num_steps:
            finish(recorder, profile)
        return state

    loop.TrainingLoop.step = step  # type: ignore[method-assign]


def write_result(
    path: Path, run_dir: Path, recorder: StepRecorder, profile: dict[str, Any]
) -> None:
    """What the clock and the run's own record say."""
    rows = last_by(read_rows(run_dir), "step").values()
    recorder.write(
        path,
        losses=[row["train/loss"] for row in rows],
        reported_tokens_per_second=[row["perf/tokens_per_second"] for row in rows],
        target_tokens=sum(row["train/target_tokens"] for row in rows),
        row_tokens=None,  # no padding: the rows hold the examples and nothing else
        profile=profile,
    )


@contextmanager
def profiled(result: dict[str, Any]) -> Iterator[None]:
    """The operations in which the time goes, into `result`, slowest first."""
    cuda = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
        yield
    result["measured"] = kind = "self_device_time_total" if cuda else "self_cpu_time_total"
    by_name, by_shape = profiler.key_averages(), profiler.key_averages(group_by_input_shape=True)
    # On a GPU the time is that of the kernels; an operation has the time of those it launched.
    slow = [e for e in by_name if not cuda or _is_kernel(e)]
    total = sum(getattr(event, kind) for event in slow)
    result["operations"] = _shares(slow, kind, total)
    result["by_shape"] = _shares([e for e in by_shape if not _is_kernel(e)], kind, total)


def _is_kernel(event: Any) -> bool:
    return event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation


def _shares(events: Sequence[Any], kind: str, total: float) -> list[dict[str, Any]]:
    """Share of the profiled step by operation. Its own time: a callee's time is the callee's."""
    slowest = sorted(events, key=lambda event: -getattr(event, kind))[:TOP_OPERATIONS]
    return [
        {
            "operation": event.key,
            "shapes": str(event.input_shapes) if event.input_shapes else "",
            "calls": event.count,
            "seconds": getattr(event, kind) / 1e6,
            "share": getattr(event, kind) / total,
        }
        for event in slowest
    ]


if __name__ == "__main__":
    main(sys.argv[1:])

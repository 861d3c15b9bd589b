"""Look before you leap: `python -m sft_dist.preflight FLAGS OF THE RUN [--probe] [--ranks N]`.

    torchrun --nproc_per_node 8 -m sft_dist.preflight -- --model_path DIR --data_path DIR --probe
    python -m sft_dist.preflight --ranks 32 ...       # on a login node: estimates for 32 ranks

Ends in go (exit code 0) or no-go (1) with all reasons. It trains nothing and leaves nothing behind.
`--probe` runs the engine for two steps on the longest batch, beside each rank of this launch.
"""

import logging
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_dist.arguments import parse_train_config
from sft_dist.config import TrainConfig
from sft_dist.engines.ds_config import ds_config_faults
from sft_dist.errors import SftDistError
from sft_dist.runtime.launch_environment import rank_from_environment, world_size_from_environment
from sft_dist.validation import run_dir_faults, setting_faults

if TYPE_CHECKING:
    from sft_dist.preflight_checks.findings import Finding
    from sft_dist.preflight_checks.longest import LongestBatch
    from sft_dist.preflight_checks.memory_model import ModelShape
    from sft_dist.preflight_checks.probe import ProbeResult
    from sft_dist.preparation import Prepared
    from sft_dist.runtime.distributed import Ranks


@dataclass(frozen=True)
class Options:
    """What the preflight knows besides the flags of the run."""

    probe: bool = False
    ranks: int = 0
    """Ranks to estimate for; 0 takes those of the launch."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exit codes: 0 go, 1 no-go."""
    words = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\nAll other flags are those of the run: sft-train --help lists them.")
        sys.exit(0)
    options, rest = split_options(words)
    is_zero = rank_from_environment() == 0
    logging.basicConfig(level=logging.ERROR)
    try:
        config = parse_train_config(rest, checks=(setting_faults, ds_config_faults))
        go = preflight(config, options)
    except SftDistError as error:
        if is_zero:
            print(f"no-go: {error}", flush=True)
        go = False
    sys.exit(0 if go else 1)


def split_options(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """(our own options, the flags of the run)."""
    rest: list[str] = []
    words = list(argv)
    probe, ranks = False, 0
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if word == "--probe":
            probe = True
        elif name == "--ranks":
            text = value or (words.pop(0) if words else "")
            if not text.isdigit() or int(text) < 1:
                sys.exit(f"--ranks: expected a number of ranks, found {text!r}")
            ranks = int(text)
        else:
            rest.append(word)
    return Options(probe, ranks), rest


def preflight(config: TrainConfig, options: Options) -> bool:
    """Run all checks; rank 0 prints the report. The same verdict on every rank."""
    from sft_dist.preflight_checks.findings import is_go, render
    from sft_dist.preparation import prepare
    from sft_dist.runtime.distributed import broadcast_text, distributed

    world_size = options.ranks or world_size_from_environment()
    prepared = prepare(config, world_size=world_size)
    with distributed() as ranks:
        findings = all_findings(config, options, prepared, ranks, world_size)
        if ranks.is_zero:
            print(render(findings), flush=True)
        verdict = broadcast_text("go" if is_go(findings) else "no-go")
    return verdict == "go"


def all_findings(
    config: TrainConfig, options: Options, prepared: "Prepared", ranks: "Ranks", world_size: int
) -> list["Finding"]:
    """Every check in the order of the report. Collective; only rank 0's list is complete."""
    from sft_dist.preflight_checks.disk import disk_finding
    from sft_dist.preflight_checks.duration import expected_seconds, hours_finding, steps_finding
    from sft_dist.preflight_checks.examples import preview_finding, stop_finding
    from sft_dist.preflight_checks.findings import Finding
    from sft_dist.preflight_checks.longest import find_longest
    from sft_dist.preflight_checks.memory import memory_table, model_shape
    from sft_dist.preflight_checks.software import describe_rank, software_findings

    described = gathered(describe_rank(ranks.local_rank))
    hosts = [rank["host"] for rank in described]
    findings = software_findings(config, described)
    # Not one of the faults that end it at once: whoever plans a second run has the first one's.
    findings += [Finding("run directory", "no-go", fault) for fault in run_dir_faults(config)]
    model = model_shape(prepared.model_dir, compiled=config.model.compile)
    longest = find_longest(
        prepared.examples,
        prepared.plan,
        world_size=world_size,
        max_tokens=config.max_tokens_per_microbatch(),
    )
    findings.append(disk_finding(config, prepared.plan, model.num_parameters))
    findings.append(shared(config, ranks, hosts))
    probed = probe(config, options, prepared, ranks, longest)
    model_dir = prepared.model_dir
    findings += memory(config, ranks, model_dir, model, longest, probed, world_size)
    findings.append(memory_table(model, config, longest))
    seconds = max((result.step_seconds for result in probed), default=0.0)
    step_seconds = expected_seconds(longest, seconds)
    findings += speed(ranks, hosts, model, longest, step_seconds)
    findings.append(
        stop_finding(
            prepared.examples,
            prepared.stop_token_id,
            model_dir=prepared.model_dir,
            tokenizer=prepared.tokenizer,
        )
    )
    findings.append(preview_finding(prepared.examples[0], prepared.tokenizer))
    findings.append(steps_finding(prepared.plan, prepared.warmup_steps, world_size))
    findings.append(hours_finding(prepared.plan, step_seconds))
    return findings


def gathered(value: Any) -> list[Any]:
    """The values of all ranks, in their order, on every rank. Collective."""
    import torch.distributed as dist

    box: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(box, value)
    return box


def shared(config: TrainConfig, ranks: "Ranks", hosts: Sequence[str]) -> "Finding":
    """Whether all ranks see one directory. Collective."""
    import shutil

    from sft_dist.paths import existing_parent
    from sft_dist.preflight_checks.shared_files import leave_mark, marks_seen, shared_finding
    from sft_dist.runtime.distributed import broadcast_text

    place = existing_parent(Path(config.checkpoint.output_dir or "outputs").absolute().parent)
    mark = broadcast_text(str(place / f".sft-preflight-{uuid.uuid4().hex[:8]}"))
    if ranks.is_zero:
        Path(mark).mkdir()
    leave_mark(Path(mark), ranks.rank)
    gathered(None)  # all have written
    seen = gathered(marks_seen(Path(mark), ranks.world_size))
    if ranks.is_zero:
        shutil.rmtree(mark)
    return shared_finding(seen, hosts, Path(mark).parent)


def probe(
    config: TrainConfig,
    options: Options,
    prepared: "Prepared",
    ranks: "Ranks",
    longest: "LongestBatch",
) -> list["ProbeResult"]:
    """One measurement a rank, or none without `--probe`. Collective."""
    from sft_dist.preflight_checks.probe import probe_rank
    from sft_dist.runtime.distributed import broadcast_text
    from sft_dist.runtime.launch_environment import free_port

    if not options.probe:
        return []
    port = int(broadcast_text(str(free_port()) if ranks.is_zero else None))
    result = probe_rank(
        config.flat(),
        longest.micro_batches,
        model_dir=prepared.model_dir,
        stop_token_id=prepared.stop_token_id,
        world_size=ranks.world_size,
        port=port,
    )
    return gathered(result)


def memory(
    config: TrainConfig,
    ranks: "Ranks",
    model_dir: Path,
    model: "ModelShape",
    longest: "LongestBatch",
    probed: Sequence["ProbeResult"],
    world_size: int,
) -> list["Finding"]:
    """The probe's failures, and the memory of a rank; that with the least counts. Collective."""
    from sft_dist.preflight_checks.findings import Finding
    from sft_dist.preflight_checks.memory import (
        available_memory,
        memory_finding,
        step_shape,
        worker_memory,
    )
    from sft_dist.preflight_checks.memory_model import estimate_memory

    worker = worker_memory(config, model_dir, model.num_parameters)
    available = min(gathered(available_memory(config, worker)))
    failed = [f"rank {i}: {result.error}" for i, result in enumerate(probed) if result.error]
    findings = [Finding("probe", "no-go", "\n".join(failed))] if failed else []
    # What was probed ran on the ranks of this launch; other numbers are estimated.
    same = ranks.world_size == world_size
    measured = [] if failed or not same else list(probed)
    estimate = estimate_memory(model, step_shape(config, model, longest, world_size=world_size))
    return [*findings, memory_finding(estimate, measured, available, longest, worker)]


def speed(
    ranks: "Ranks",
    hosts: Sequence[str],
    model: "ModelShape",
    longest: "LongestBatch",
    step_seconds: float,
) -> list["Finding"]:
    """Bandwidth and slow ranks. Collective."""
    from sft_dist.preflight_checks.speed import (
        all_reduce_bandwidth,
        bandwidth_finding,
        compute_seconds,
        slow_rank_finding,
    )

    bandwidth = all_reduce_bandwidth(ranks.device)
    seconds = gathered(compute_seconds(ranks.device))
    return [
        bandwidth_finding(
            bandwidth,
            num_parameters=model.num_parameters,
            micro_batches=longest.mean_micro_batches,
            step_seconds=step_seconds,
        ),
        slow_rank_finding(seconds, hosts),
    ]


if __name__ == "__main__":
    main()

"""What docs/scaling.md says a step sends and how long that takes, against a real network.

    python -m benchmarks.scaling_check --output benchmarks/results/   # root and iproute2, ~15 min

Two and three virtual hosts with a rank each, a random Qwen2 of 8 M parameters, ZeRO-2 and FSDP2,
one micro-batch a step and four. Bytes are those that the kernel counted on the hosts' interfaces,
as the difference of two runs of different length: start-up and end fall out. Seconds are of steps
through interfaces that the kernel holds to a rate, against the same steps without a limit plus
bytes / rate.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.scaling_model import reduction_passes
from benchmarks.throughput_machine import describe_machine, results_path
from launch.virtual_hosts import VirtualHost, virtual_hosts, why_not
from sft_dist.tracking.record import last_by, read_rows
from tests.scripts.several_hosts import Job

ENGINES = {"ZeRO-2": "deepspeed", "FSDP2": "fsdp"}
SHORT_STEPS, LONG_STEPS = 3, 9
EXAMPLES_A_RANK = 4
LENGTH = 128
"""Tokens that a micro-batch may have at least; every example has between half of that and all."""
SHAPE = {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 4,
         "layer_types": 4 * ["full_attention"], "num_attention_heads": 12,
         "num_key_value_heads": 12}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One engine on some hosts: what a step sent and took, measured and by the model."""

    engine: str
    hosts: int
    micro_batches: int
    parameters: int
    sent: float
    """Bytes a step and host, measured."""
    sent_model: float
    free_seconds: float
    """Of a step without a limit."""
    limited_seconds: float
    limited_model: float


def sent_bytes(engine: str, parameters: int, hosts: int, micro_batches: int) -> float:
    """Bytes that a rank sends in a step: docs/scaling.md, with bf16 weights.

    gloo has no reduce-scatter, torch all-reduces in its place: two passes where NCCL has one.
    """
    passes = max(2, reduction_passes(engine, micro_batches))
    return (hosts - 1) / hosts * parameters * (4 * passes + 2)


def write_inputs(folder: Path, num_train: int) -> int:
    """A model and examples of one length; the number of its parameters."""
    import torch
    from transformers import AutoConfig, Qwen2ForCausalLM

    from launch.demo.model import write_model
    from launch.demo.problems import make_problems, write_math_directory

    write_model(folder / "model", 0)
    config = AutoConfig.from_pretrained(folder / "model")
    config.update(SHAPE)
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "model")
    problems, test = make_problems(0, num_train=200, num_test=4)
    longest = max(problems, key=lambda record: len(record["problem"] + record["solution"]))
    write_math_directory(folder / "data", [longest] * num_train, test=test)
    return sum(p.numel() for p in model.parameters())


def run(
    inputs: Path, folder: Path, hosts: Sequence[VirtualHost], engine: str, micro: int, steps: int
) -> list[float]:
    """Train so many steps; seconds of each."""
    job = Job(
        inputs, folder, ENGINES[engine], max_steps=steps, save_steps=10**6,
        global_batch_size=EXAMPLES_A_RANK * len(hosts),
        max_tokens_per_microbatch=LENGTH * EXAMPLES_A_RANK // micro,
    )  # fmt: skip
    job.finish(job.start(hosts, ranks_per_host=1))
    rows = last_by(read_rows(job.run_dir), "step")
    assert len(rows) == steps, job.logs()
    return [rows[step]["perf/step_seconds"] for step in sorted(rows)]


def counted(hosts: Sequence[VirtualHost]) -> float:
    """Bytes that the kernel has seen leave, mean of the hosts."""
    counters = "/sys/class/net/eth0/statistics/tx_bytes"
    return statistics.mean(int(host.output(["cat", counters])) for host in hosts)


def limit(hosts: Sequence[VirtualHost], megabits: float) -> None:
    """Hold what each host sends to a rate."""
    shape = ["tbf", "rate", f"{megabits}mbit", "burst", "256kb", "latency", "200ms"]
    for host in hosts:
        host.output(["tc", "qdisc", "replace", "dev", "eth0", "root", *shape])


def measure(
    inputs: Path, parameters: int, engine: str, count: int, micro: int, megabits: float
) -> Row:
    with tempfile.TemporaryDirectory() as folder, virtual_hosts(count) as hosts:
        marks = [counted(hosts)]
        for steps in (SHORT_STEPS, LONG_STEPS):
            free = run(inputs, Path(folder, str(steps)), hosts, engine, micro, steps)
            marks.append(counted(hosts))
        sent = ((marks[2] - marks[1]) - (marks[1] - marks[0])) / (LONG_STEPS - SHORT_STEPS)
        limit(hosts, megabits)
        limited = run(inputs, Path(folder, "limited"), hosts, engine, micro, SHORT_STEPS + 2)
    model = sent_bytes(engine, parameters, count, micro)
    undisturbed = statistics.median(free[2:])  # the first two have the engine's preparations
    return Row(
        engine, count, micro, parameters, sent, model, undisturbed, statistics.median(limited[2:]),
        undisturbed + 8 * model / (megabits * 1e6),
    )  # fmt: skip


def line(row: Row) -> str:
    """Of the table."""
    return (
        f"| {row.engine} | {row.hosts} | {row.micro_batches} | {row.sent / 1e6:.1f} | "
        f"{row.sent_model / 1e6:.1f} | {row.sent_model / row.sent - 1:+.1%} | "
        f"{row.free_seconds:.2f} | {row.limited_seconds:.2f} | {row.limited_model:.2f} | "
        f"{row.limited_model / row.limited_seconds - 1:+.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", nargs="*", type=int, default=[2, 3])
    parser.add_argument("--micro_batches", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--megabits", type=float, default=400)
    parser.add_argument("--output", type=Path, help="directory of the results file")
    options = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"cannot run: {reason}")
    inputs = Path(tempfile.mkdtemp(prefix="scaling-check-"))
    most = EXAMPLES_A_RANK * max(options.hosts) * LONG_STEPS
    parameters = write_inputs(inputs, most)
    print(f"{parameters / 1e6:.2f} M parameters, limit {options.megabits:.0f} Mb/s\n")
    print("| engine | hosts | micro-batches | MB sent | model | off by | s free | s limited "
          "| model | off by |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    rows = []
    for count in options.hosts:
        for engine in ENGINES:
            for micro in options.micro_batches:
                row = measure(inputs, parameters, engine, count, micro, options.megabits)
                rows.append(row)
                print(line(row), flush=True)
    if options.output:
        machine = describe_machine(threads=1)
        found = {"machine": machine, "megabits": options.megabits, "rows": list(map(asdict, rows))}
        path = results_path(options.output, "scaling_check", machine)
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

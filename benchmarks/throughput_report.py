"""From measurements to the figures of `train_throughput.py`: medians, ratios, checks, the table.

Not a command. `tokens/s` are useful ones: tokens of examples, prompts too, over the time of the
steps after the first; padding does not count. Ratios are of medians over the rounds.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from throughput_rounds import Measurement
from throughput_sides import OTHER_OBJECTIVE, OURS, PEERS
from throughput_work import Steps

LOSS_TOLERANCE = 0.01
GIB = 2**30
COLUMNS = (
    "side", "numbers", "tokens/s (slowest - fastest)", "we are", "cores busy", "GiB", "our memory",
    "useful places", "loss, first (worst)",
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """One side over all rounds. Ratios and differences are those of our reference side to it."""

    side: str
    dtype: str
    rounds: int
    tokens_per_second: float
    slowest: float
    fastest: float
    first_step_seconds: float
    cpu_busy: float
    """CPU time over wall time of the steps that count: threads, less what others took."""
    speed_ratio: float
    """Our tokens/s over this side's."""
    memory_gib: float
    memory_ratio: float
    """Our peak memory over this side's."""
    useful_share: float
    """Tokens of examples over places in the computed rows."""
    loss_difference: float
    """Of the first step's loss, relative."""
    worst_loss_difference: float
    """The same over all steps."""
    flops_share: dict[str, float]
    """`Steps.flops` a second over the machine's rates, by the rates' names."""
    needed_flops_share: dict[str, float]


def summarise(
    measurements: Sequence[Measurement],
    steps: Steps,
    matrix_rates: Mapping[str, float],
    *,
    sides: Sequence[str],
) -> list[Summary]:
    """A summary of each side that was measured, in the order of `sides`.

    Args:
        measurements: all rounds.
        steps: their work.
        matrix_rates: FLOP/s of the machine, by the name that the table gives them.
        sides: the first of them is the reference; without it there is nothing to compare.
    """
    taken = {side: [m for m in measurements if m.side == side] for side in sides}
    reference = taken[sides[0]]
    if not reference:
        return []
    return [_summary(rows, reference, steps, matrix_rates) for rows in taken.values() if rows]


def median_rates(rates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median by dtype."""
    return {dtype: statistics.median(rate[dtype] for rate in rates) for dtype in rates[0]}


def faults(
    summaries: Sequence[Summary], measurements: Sequence[Measurement], steps: Steps
) -> list[str]:
    """Why this is not a comparison of equal work; empty when it is."""
    expected = sum(steps.target_tokens)
    found = [
        f"{m.side}, round {m.round}: {m.target_tokens} target tokens, expected {expected}"
        for m in measurements
        if m.target_tokens != expected
    ]
    found += [
        f"{s.side}: its first loss differs from ours by {s.loss_difference:.2%}"
        for s in summaries
        if s.side not in OTHER_OBJECTIVE and s.loss_difference > LOSS_TOLERANCE
    ]
    return found


def table(summaries: Sequence[Summary]) -> str:
    """Markdown, one line a side."""
    rates = [f"of {name} rate" for name in (summaries[0].flops_share if summaries else ())]
    columns = [*COLUMNS, *rates]
    return _markdown([columns, ["---"] * len(columns), *map(_cells, summaries)])


def profile_table(profile: Mapping[str, Any], *, top: int = 12) -> str:
    """Markdown of the slowest operations of our profiled step, with the shapes they had."""
    names = ("share", "seconds", "calls", "operation", "shapes")
    rows = [
        (f"{row['share']:.1%}", f"{row['seconds']:.3f}", row["calls"], row["operation"],
         row["shapes"][:80])
        for row in profile["by_shape"][:top]
    ]  # fmt: skip
    return _markdown([names, ["---"] * len(names), *rows])


def as_json(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """The summaries, each with the meaning of its side."""
    meanings = {name: peer.meaning for name, peer in PEERS.items()}
    meanings |= {name: " ".join(flags) for name, flags in OURS.items()}
    return [{**asdict(s), "meaning": meanings[s.side]} for s in summaries]


def _cells(summary: Summary) -> list[str]:
    s = summary
    shares = [
        f"{share:.0%} ({s.needed_flops_share[name]:.0%})" for name, share in s.flops_share.items()
    ]
    return [
        s.side,
        s.dtype,
        f"{s.tokens_per_second:,.1f} ({s.slowest:,.1f} - {s.fastest:,.1f})",
        f"{s.speed_ratio:.2f} x",
        f"{s.cpu_busy:.2f}",
        f"{s.memory_gib:.2f}",
        f"{s.memory_ratio:.2f} x",
        f"{s.useful_share:.0%}",
        f"{s.loss_difference:.2%} ({s.worst_loss_difference:.2%})",
        *shares,
    ]


def _markdown(rows: Sequence[Sequence[object]]) -> str:
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)


def _summary(
    taken: Sequence[Measurement],
    reference: Sequence[Measurement],
    steps: Steps,
    matrix_rates: Mapping[str, float],
) -> Summary:
    speeds = [steps.rate(steps.tokens, m.step_seconds) for m in taken]
    flops = statistics.median(steps.rate(steps.flops, m.step_seconds) for m in taken)
    needed = statistics.median(steps.rate(steps.needed_flops, m.step_seconds) for m in taken)
    ours = statistics.median(steps.rate(steps.tokens, m.step_seconds) for m in reference)
    losses = zip(taken[0].losses, reference[0].losses, strict=True)
    differences = [abs(theirs / expected - 1) for theirs, expected in losses]
    return Summary(
        side=taken[0].side,
        dtype=taken[0].dtype,
        rounds=len(taken),
        tokens_per_second=statistics.median(speeds),
        slowest=min(speeds),
        fastest=max(speeds),
        first_step_seconds=statistics.median(m.step_seconds[0] for m in taken),
        cpu_busy=statistics.median(steps.rate(m.cpu_seconds, m.step_seconds) for m in taken),
        speed_ratio=ours / statistics.median(speeds),
        memory_gib=_memory(taken),
        memory_ratio=_memory(reference) / _memory(taken),
        useful_share=sum(steps.tokens) / (taken[0].row_tokens or sum(steps.tokens)),
        loss_difference=differences[0],
        worst_loss_difference=max(differences),
        flops_share={name: flops / peak for name, peak in matrix_rates.items()},
        needed_flops_share={name: needed / peak for name, peak in matrix_rates.items()},
    )


def _memory(taken: Sequence[Measurement]) -> float:
    """Median peak in GiB: of the GPU's tensors where there is a GPU, else of the process."""
    return statistics.median(m.peak_cuda_bytes or m.peak_rss_bytes for m in taken) / GIB

"""Several runs of the same problems: is the best one better than the others, or only luckier?"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sft_dist.reporting.comparison import compare
from sft_dist.reporting.graded import shares
from sft_dist.reporting.run import RunView


def against_best(runs: Sequence[RunView]) -> list[dict[str, Any] | None]:
    """For each run its last evaluation against the best of all last ones, problem by problem.

    The entries of `Paired` with `gained` and `lost` as counts, and the best run's number as
    `best`. None for the best itself, for a run without answers, and where no problem is shared.
    Picking the best of many makes it look better than it is; the p-values do not allow for that.
    """
    found = [_last_shares(run) for run in runs]
    scored = [index for index, shares_by_id in enumerate(found) if shares_by_id]
    if len(scored) < 2:
        return [None] * len(runs)
    best = max(scored, key=lambda index: _mean(found[index]))
    return [
        None if index == best or not mine else _against(found[best], mine, best)
        for index, mine in enumerate(found)
    ]


def _against(best: dict[str, float], mine: dict[str, float], number: int) -> dict[str, Any] | None:
    place = {problem: index for index, problem in enumerate(best.keys() & mine.keys())}
    change = compare(
        {place[i]: share for i, share in best.items() if i in place},
        {place[i]: share for i, share in mine.items() if i in place},
    )
    if change is None:
        return None
    counted = {"gained": len(change.gained), "lost": len(change.lost), "best": number}
    return {**asdict(change), **counted}


def _last_shares(run: RunView) -> dict[str, float]:
    """Share of right answers by problem id, of the last evaluation under the training prompt."""
    named = [e for e in run.data["evaluations"] if e["name"] and e["series"] == 0]
    if not named:
        return {}
    problems = run.scores.problems[named[-1]["problems"]]
    found = shares(run.scores.answers[named[-1]["name"]])
    return {problems.rows[index]["id"]: share for index, share in found.items()}


def _mean(shares_by_id: dict[str, float]) -> float:
    return sum(shares_by_id.values()) / len(shares_by_id)

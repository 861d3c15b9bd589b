"""Which problems are evaluated: a stratified sample, the same for every step and every restart."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sft_dist.data.records import MathExample

SELECTION_SEED = 0
"""Fixed, so that runs with other data orders are scored on the same problems."""


def stratified_sample(examples: Sequence[MathExample], count: int) -> list[MathExample]:
    """`count` examples in proportion to (subject, level), in their original order; 0 takes all.

    Places that proportion leaves open go to the strata with the largest remainders.
    """
    if count == 0 or count >= len(examples):
        return list(examples)
    strata: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        strata[example.subject, example.level or 0].append(index)
    quotas = {key: count * len(members) / len(examples) for key, members in strata.items()}
    places = {key: int(quota) for key, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda key: (places[key] - quotas[key], key))
    for key in by_remainder[: count - sum(places.values())]:
        places[key] += 1
    generator = np.random.Generator(np.random.Philox(key=[SELECTION_SEED, count]))
    chosen: list[int] = []
    for key in sorted(strata):
        chosen += generator.permutation(strata[key])[: places[key]].tolist()
    return [examples[i] for i in sorted(chosen)]


def hold_out(
    examples: Sequence[MathExample], count: int
) -> tuple[list[MathExample], list[MathExample]]:
    """Split off `count` stratified examples: (left for training, held out for evaluation)."""
    held = stratified_sample(examples, count)
    held_ids = {e.id for e in held}
    return [e for e in examples if e.id not in held_ids], held

"""Split a global batch over ranks and micro-batches by tokens, longest example first.

Pure functions of the lengths: every rank computes the same plan and takes its own part. Equal work
for every rank, the same number of micro-batches on every rank (collectives must match), each within
the token limit. A micro-batch may be empty when there are fewer examples than micro-batches.
"""

import heapq
from collections.abc import Sequence

Bins = list[list[int]]


def split_global_batch(
    lengths: Sequence[int], world_size: int, max_tokens: int
) -> list[list[list[int]]]:
    """Positions in the global batch by rank and micro-batch: `plan[rank][micro_batch]`.

    Args:
        lengths: tokens of each example of the global batch.
        world_size: number of ranks.
        max_tokens: most tokens in one micro-batch; no example may be longer.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    ranks = _least_loaded(longest_first, lengths, world_size)
    filled = [_first_fit(rank, lengths, max_tokens) for rank in ranks]
    count = max(1, *(len(bins) for bins in filled))
    return [
        _even_out(rank, bins, lengths, count, max_tokens)
        for rank, bins in zip(ranks, filled, strict=True)
    ]


def _least_loaded(items: Sequence[int], lengths: Sequence[int], count: int) -> Bins:
    """Each item, in the given order, to the bin with the fewest tokens so far."""
    bins: Bins = [[] for _ in range(count)]
    heap = [(0, index) for index in range(count)]
    for item in items:
        load, index = heapq.heappop(heap)
        bins[index].append(item)
        heapq.heappush(heap, (load + lengths[item], index))
    return bins


def _first_fit(items: Sequence[int], lengths: Sequence[int], max_tokens: int) -> Bins:
    """As few bins as first-fit finds, each within `max_tokens`."""
    bins: Bins = []
    room: list[int] = []
    for item in items:
        index = next((i for i, left in enumerate(room) if left >= lengths[item]), len(bins))
        if index == len(bins):
            bins.append([])
            room.append(max_tokens)
        bins[index].append(item)
        room[index] -= lengths[item]
    return bins


def _even_out(
    items: Sequence[int], bins: Bins, lengths: Sequence[int], count: int, max_tokens: int
) -> Bins:
    """The items in `count` bins of like size where that keeps the limit, else first-fit's bins."""
    even = _least_loaded(items, lengths, count)
    if all(sum(lengths[i] for i in b) <= max_tokens for b in even):
        return even
    return bins + [[] for _ in range(count - len(bins))]

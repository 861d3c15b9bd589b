"""Which points of the recorded runs are to be the last ones: drawn from a seed, by kind of point.

Two streams for each job. One goes through the file operations of its saves: one of each kind first
(open, half write, fsync, rename, ...), then all others in an order of chance, none a second time
before each had its turn. The other takes the rest of the recipe, one kind of point after the other.
"""

import random
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import count

from tests.faults.points import Kill

OPERATION = re.compile(r"save (\d+): (half write|\w+) (\S.*)")
KINDS = {
    "start-up": r"start-up: ",
    "between micro-batches": r"step \d+: between ",
    "before the update": r"step \d+: (after the backward|before the optimizer step)",
    "after the update": r"step \d+: (after the optimizer step|updated, not recorded)",
    "the row": r"step \d+: (half write|write) metrics\.jsonl",
    "an epoch's end": r"step \d+: an epoch's end",
    "before and after the copy": r"step \d+: (before its save|its save is under way)",
    "an evaluation is open": r"(step \d+|end): an evaluation is open",
    "queue, grading, exports": r"evaluation: \w+.* (\.exports|evaluations)/",
    "the worker's files": r"evaluation worker: ",
}
"""Of the points that are no file operations of a save."""
SAVES_OF_THREE = {"alone": 2, "evaluated": 1, "sharded": 2}
"""So many of three kills hit a file operation of a save."""


@dataclass(frozen=True)
class PlannedRun:
    """A run and where its attempts are killed, one after the other; the last attempt is not."""

    job: str
    kills: tuple[Kill, ...]


def operation_of(process, point):
    """(kind, name) of a file operation of a save, the same in every save; None for other points."""
    match = OPERATION.fullmatch(point)
    if match is None:
        return None
    where = re.sub(r"(checkpoint|weights|step)-\d+", r"\1-N", match[3])
    return match[2], f"{process}: {match[2]} {where}"


def kind_of(process, point):
    """What the report counts: the kind of file operation, or of place."""
    operation = operation_of(process, point)
    if operation is not None:
        return f"save: {operation[0]}"
    return next((name for name, pattern in KINDS.items() if re.match(pattern, point)), None)


def operations_in(points):
    """The operations of a save among (process, point) pairs: name -> kind."""
    found = (operation_of(*point) for point in points)
    return {name: kind for kind, name in filter(None, found)}


class Draw:
    """Draws points of the recorded runs, without end."""

    def __init__(self, recordings, seed):
        """`recordings`: by job, the (process, point) pairs of a run that was not killed."""
        self._random = random.Random(seed)
        self._recordings = recordings
        self._taken = set()
        self._streams = {job: self._stream(job, points) for job, points in recordings.items()}

    def runs(self, job, number):
        """Runs with `number` kills in all, one to three in each."""
        runs = []
        while number:
            size = min(self._random.randint(1, 3), number)
            runs.append(PlannedRun(job, self._in_order(job, self.kills(job, size))))
            number -= size
        return runs

    def kills(self, job, number):
        return [next(self._streams[job]) for _ in range(number)]

    def _in_order(self, job, kills):
        """As one attempt after the other comes to them; a start-up comes again with each."""
        order = {point: place for place, point in enumerate(self._recordings[job])}
        kills = sorted(kills, key=lambda kill: order[kill.process, kill.point])
        if kills[0].point.startswith("start-up") and self._random.random() < 0.5:
            kills.append(kills.pop(0))
        return tuple(kills)

    def _stream(self, job, points):
        saves, places = self._saves(points), self._places(points)
        for number in count():
            is_save = number % 3 < SAVES_OF_THREE[job]
            process, point = next(saves if is_save else places)
            # The worker alone is no end of an attempt: the trainer starts another.
            node = process == "worker" or (job != "alone" and self._random.random() < 0.5)
            yield Kill(process, point, node)

    def _saves(self, points):
        by_name, kinds = defaultdict(list), operations_in(points)
        for point in points:
            operation = operation_of(*point)
            if operation is not None:
                by_name[operation[1]].append(point)
        while True:
            names = sorted(by_name)
            self._random.shuffle(names)
            first = {kinds[name]: name for name in reversed(names)}  # one of each kind
            names.sort(key=lambda name: (name in self._taken, name != first[kinds[name]]))
            for name in names:
                self._taken.add(name)
                yield self._random.choice(by_name[name])

    def _places(self, points):
        by_kind = defaultdict(list)
        for process, point in points:
            kind = kind_of(process, point)
            if kind in KINDS and not point.startswith("step 1:"):  # few before the first step
                by_kind[kind].append((process, point))
        while True:
            kinds = sorted(by_kind)
            self._random.shuffle(kinds)
            for kind in kinds:
                yield self._random.choice(by_kind[kind])

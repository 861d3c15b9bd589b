r"""Are evaluation problems among the training examples? Found before training; no torch.

A problem is *exact* when its words are those of a training problem, and *near* when 80 % of its
words lie in runs of 13 words that occur in training problems with the same numbers. Runs of 13
words: Brown et al. 2020 (GPT-3), appendix C; 80 % of the words: Touvron et al. 2023 (Llama 2),
appendix A.6; the numbers are ours, because MATH asks one question with many numbers.

What is refused, and why there: between the official train and test splits of MATH no problem is
exact and 0.9 % are near (docs/evaluation.md), while the official test set scored after training on
the 12,000 problems of the 12,000/500 split is 90 % exact.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sft_dist.data.records import MathExample
from sft_dist.errors import ConfigError

logger = logging.getLogger(__name__)

RUN_WORDS = 13
NEAR_SHARE = 0.8
MAX_EXACT_SHARE = 0.01
MAX_SHARE = 0.05
"""Of the evaluation problems: exact ones, and exact and near ones together. More is refused."""
FEW = 5
"""So many near ones may be chance in a small sample of problems."""

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s$.,]|_")
"""Words, numbers, signs. Of mathematics every sign counts (-150 is not 150); spacing, dollars,
full stops and commas are typesetting."""


_Run = tuple[int, int]


@dataclass(frozen=True)
class Overlap:
    """An evaluation problem that the training data holds: exactly, or `share` of its words."""

    evaluation_id: str
    train_id: str
    share: float
    is_exact: bool

    def __str__(self) -> str:
        """For people."""
        how = "exact" if self.is_exact else f"{self.share:.0%} of the words"
        return f"{self.evaluation_id} = {self.train_id} ({how})"


def refuse_contamination(
    train: Sequence[MathExample], evaluation: Sequence[MathExample], *, allow: bool
) -> None:
    """Log what of `evaluation` is in `train`.

    Raises:
        ConfigError: when it is more than a clean split has, unless `allow`.
    """
    if not evaluation:
        return
    found = find_overlaps(train, evaluation)
    if not found:
        logger.info("no evaluation problem is in the training data (%d looked up)", len(evaluation))
        return
    text = describe(found, len(evaluation))
    if is_clean(found, len(evaluation)):
        logger.info("%s; a clean split has as much", text)
    elif allow:
        logger.warning("%s; --allow_contamination: accuracy says little about new problems", text)
    else:
        raise ConfigError(
            [
                f"--data_path: {text}. Accuracy would measure memory: train on another split, name "
                "other problems with --eval_data_path, or go on all the same with "
                "--allow_contamination"
            ]
        )


def find_overlaps(train: Sequence[MathExample], evaluation: Sequence[MathExample]) -> list[Overlap]:
    """Evaluation problems that are exactly or nearly in `train`, exact ones first."""
    asked = [words(example.problem) for example in evaluation]
    whole: dict[tuple[str, ...], str | None] = {tuple(text): None for text in asked}
    runs: dict[_Run, str | None] = {run: None for text in asked for run in _runs(text)}
    for example in train:
        text = words(example.problem)
        if whole.get(tuple(text), "") is None:
            whole[tuple(text)] = example.id
        for run in _runs(text):
            if run in runs and runs[run] is None:
                runs[run] = example.id
    found = [
        _overlap(example.id, text, whole[tuple(text)], runs)
        for example, text in zip(evaluation, asked, strict=True)
    ]
    return sorted(filter(None, found), key=lambda overlap: not overlap.is_exact)


def is_clean(found: Sequence[Overlap], num_evaluation: int) -> bool:
    """Whether `found` is no more than unrelated problems have in common."""
    exact = sum(overlap.is_exact for overlap in found)
    most = max(MAX_SHARE * num_evaluation, FEW)
    return exact <= MAX_EXACT_SHARE * num_evaluation and len(found) <= most


def describe(found: Sequence[Overlap], num_evaluation: int, examples: int = 3) -> str:
    """Counts, shares and the first few pairs of ids."""
    exact = sum(overlap.is_exact for overlap in found)
    near = len(found) - exact
    pairs = "; ".join(str(overlap) for overlap in found[:examples])
    more = f"; and {len(found) - examples} more" if len(found) > examples else ""
    return (
        f"of {num_evaluation} evaluation problems {exact} ({exact / num_evaluation:.1%}) are in "
        f"the training data word for word and {near} ({near / num_evaluation:.1%}) nearly: "
        f"{pairs}{more}"
    )


def words(problem: str) -> list[str]:
    """Words, numbers and signs of a problem in lower case."""
    return _WORD.findall(problem.lower())


def _runs(text: Sequence[str]) -> Iterator[_Run]:
    """The runs of 13 words by place, as 64-bit hashes, each with a hash of the problem's numbers.

    So a run is shared only by problems with the same numbers: one template with others is another
    problem.
    """
    numbers = hash(tuple(sorted(word for word in text if word.isdecimal())))
    return (
        (hash(tuple(text[i : i + RUN_WORDS])), numbers) for i in range(len(text) - RUN_WORDS + 1)
    )


def _overlap(
    evaluation_id: str, text: Sequence[str], exact: str | None, runs: dict[_Run, str | None]
) -> Overlap | None:
    if exact is not None:
        return Overlap(evaluation_id, exact, 1.0, is_exact=True)
    covered, sources = [False] * len(text), []
    for place, run in enumerate(_runs(text)):
        source = runs[run]
        if source is not None:
            covered[place : place + RUN_WORDS] = [True] * RUN_WORDS
            sources.append(source)
    share = sum(covered) / max(1, len(text))
    if share < NEAR_SHARE:
        return None
    most = max(set(sources), key=lambda source: (sources.count(source), source))
    return Overlap(evaluation_id, most, share, is_exact=False)

"""Which files below a data path hold the training or the test split. Reads names, never contents.

One rule covers the layouts in use: every JSON, JSONL and parquet file below the path is listed,
and the first part of its relative path that names a split decides. So these all work:

    train/algebra/12.json                          original MATH
    train.jsonl   math_train.json   test.parquet   one file a split
    data/train-00000-of-00001.parquet              Hugging Face
    algebra/train-00000-of-00001.parquet           Hugging Face, one configuration a subject
    algebra/12.json   problems.jsonl               no split named: training only
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sft_dist.data.rows import SUFFIXES
from sft_dist.errors import DataError
from sft_dist.paths import near_path

Split = Literal["train", "test"]

logger = logging.getLogger(__name__)

# "validation" is recognised so that it is never taken for training data; nothing reads it.
_SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_MAX_DEPTH = 4  # folders below the path; deeper is a wrong path such as a home directory
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The files of one split: names relative to `root`, with `/`, in natural order."""

    root: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    split: str | None
    by_folder: bool  # a folder names the split, not the file
    exact: bool  # `train/` or `train-00000-of-00002.parquet`, not `math_train_small.json`


def find_files(path: str, split: Split, *, any_split: bool = False) -> SplitFiles:
    """`select_files`, which must find something.

    Raises:
        DataError: also when no file fits; the message lists what was tried.
    """
    files = select_files(path, split, any_split=any_split)
    if not files.names:
        raise DataError(_nothing_fits(path, split, root=files.root))
    return files


def select_files(path: str, split: Split, *, any_split: bool = False) -> SplitFiles:
    """The files of `split` at `path`: a file, a directory, or a Hub id (downloaded).

    With `any_split`, a file, or a folder in which no name says a split, is taken whatever its
    own name says: for a path that the user gave for this purpose alone (`--eval_data_path`).

    Raises:
        DataError: `path` is not there or not readable as data, or holds the split twice.
    """
    path = os.path.expanduser(path)
    root, names = _list_files(path)
    candidates = [_classify(name) for name in names]
    some_named = any(c.split for c in candidates)
    if any_split and (os.path.isfile(path) or not some_named):
        chosen = candidates
    else:
        # Beside files that name a split, one that does not is something else (default None).
        default = None if some_named else _split_of_location(root)
        chosen = [c for c in candidates if (c.split or default) == split]
    chosen = _prefer_exact(chosen, root=root)
    _refuse_two_sets(chosen, root=root, split=split)
    return SplitFiles(root, tuple(sorted((c.name for c in chosen), key=natural_key)))


def natural_key(name: str) -> tuple[object, ...]:
    """Sort key that puts `algebra/2` before `algebra/10`, and folders in alphabetical order."""
    parts = os.path.splitext(name)[0].split("/")
    split_parts = (re.split(r"([0-9]+)", part) for part in parts)
    return (
        *(
            tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in s if p)
            for s in split_parts
        ),
        (2, 0, name),
    )


def _list_files(path: str) -> tuple[str, list[str]]:
    """Root directory and the data files below it, as relative names; downloads a Hub data set."""
    if os.path.isfile(path):
        if not path.lower().endswith(SUFFIXES):
            raise DataError(f"{path} is not a data file: expected a name ending in {SUFFIXES}.")
        return os.path.dirname(path) or ".", [os.path.basename(path)]
    root = path if os.path.isdir(path) else _download(path)
    names = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if below == "." else below + "/"
        too_deep = prefix.count("/") >= _MAX_DEPTH
        subfolders[:] = [] if too_deep else [s for s in subfolders if not s.startswith((".", "_"))]
        names += [
            prefix + name
            for name in files
            if name.lower().endswith(SUFFIXES) and name not in _METADATA and name[0] != "."
        ]
    return root, names


def _classify(name: str) -> _Candidate:
    *folders, stem = os.path.splitext(name)[0].split("/")
    for folder in folders:
        if folder.lower() in _SPLIT_OF_WORD:
            return _Candidate(name, _SPLIT_OF_WORD[folder.lower()], by_folder=True, exact=True)
    words = re.split(r"[^a-z]+", stem.lower())
    named = {_SPLIT_OF_WORD[word] for word in words if word in _SPLIT_OF_WORD}
    exact = set(words) - {"of", ""} <= _SPLIT_OF_WORD.keys()
    return _Candidate(name, named.pop() if len(named) == 1 else None, by_folder=False, exact=exact)


def _split_of_location(root: str) -> str:
    """Split of files that name none: `MATH/test` and `MATH/test/algebra` are test all the same."""
    for folder in reversed(os.path.abspath(root).lower().split(os.sep)[-2:]):
        if folder in _SPLIT_OF_WORD:
            return _SPLIT_OF_WORD[folder]
    return "train"


def _prefer_exact(candidates: list[_Candidate], *, root: str) -> list[_Candidate]:
    """`train.jsonl` alone where `train_small.jsonl` lies beside it: both would count twice."""
    exact = [c for c in candidates if c.exact]
    if not exact or len(exact) == len(candidates) or candidates[0].split is None:
        return candidates
    ignored = sorted(c.name for c in candidates if not c.exact)
    logger.warning("%s: not read, as %s has the plain name: %s", root, exact[0].name, ignored[:5])
    return exact


def _refuse_two_sets(candidates: list[_Candidate], *, root: str, split: Split) -> None:
    """Two formats, or a folder beside a file, are most likely the same problems twice."""
    sets: dict[tuple[str, bool], str] = {}
    for candidate in candidates:
        suffix = os.path.splitext(candidate.name)[1].lower()
        sets.setdefault((suffix, candidate.by_folder), candidate.name)
    if len(sets) > 1:
        found = ", ".join(sorted(sets.values()))
        raise DataError(
            f"{root} holds the {split} split more than once, for example {found}. "
            "Give the path of the one to use."
        )


def _nothing_fits(path: str, split: Split, *, root: str) -> str:
    names = _list_files(path)[1]
    kinds = ",".join(suffix[1:] for suffix in SUFFIXES)
    tried = [
        f"{root}/{split}/**/*.{{{kinds}}}",
        f"{root}/**/*{split}*.{{{kinds}}}",
    ]
    if split == "train":
        tried.append(f"{root}/**/*.{{{kinds}}} (when no name says train, test or validation)")
    shown = sorted(names, key=natural_key)
    found = ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
    lines = [
        f"no {split} split at {path}. Tried:",
        *(f"  {pattern}" for pattern in tried),
        f"Data files found there: {found or 'none'}.",
    ]
    if split == "test":
        lines.append(
            "Give the test problems with --eval_data_path PATH, "
            "or keep N training examples apart with --holdout N."
        )
    return "\n".join(lines)


def _download(path: str) -> str:
    """Local directory of the data files of a Hub data set; later calls use the cache.

    huggingface_hub comes with transformers; the data files then go through the same rule as a
    directory, so the `datasets` library is not needed.
    """
    tried = f"  {os.path.abspath(path)} (does not exist)"
    if not _HUB_ID.fullmatch(path):
        raise DataError(
            f"no data at {path}. Tried:\n{tried}\nExpected the MATH directory, a directory or "
            f"file of JSON, JSONL or parquet, or a Hub id such as owner/name{near_path(Path(path))}"
        )
    import huggingface_hub  # here: a local path must not pay for it
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [f"*{suffix}" for suffix in SUFFIXES]
    try:
        return huggingface_hub.snapshot_download(path, repo_type="dataset", allow_patterns=patterns)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"no data at {path}. Tried:\n{tried}\n  Hugging Face data set {path}: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}\n"
            "Correct the path, or download the data set where there is a network and give its "
            "directory (in the cache it is also found with HF_HUB_OFFLINE=1)"
            f"{near_path(Path(path))}"
        ) from error

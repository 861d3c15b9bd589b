"""MATH problems from disk or the Hub: one `MathExample` a record, bad records counted by name.

`load_split(path, "train")` and `load_split(path, "test")` read what `--data_path` names;
`load_evaluation(path)` reads what `--eval_data_path` names. Which files are read is decided in
layouts.py, how a file is cut into rows in rows.py; this module says what a row means. Not here:
prompts, tokens, holding out examples.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sft_dist.data.layouts import Split, SplitFiles, find_files, select_files
from sft_dist.data.rows import Row, read_rows
from sft_dist.errors import DataError, counted
from sft_dist.grading import extract_boxed

_PROBLEM_FIELDS = ("problem", "question")
_SUBJECT_FIELDS = ("type", "subject")
_FIELDS = frozenset(
    {*_PROBLEM_FIELDS, *_SUBJECT_FIELDS, "solution", "answer", "level", "unique_id"}
)


@dataclass(frozen=True, slots=True)
class MathExample:
    """One problem.

    `id` does not depend on the machine: `train/algebra/12` for a file that holds one problem,
    `train.jsonl:17` for a row, the record's own `unique_id` (without `.json`) when it has one.
    `answer` is the record's `answer` field, else the last balanced box of the solution; None in
    a training record that has neither. `level` is 1 to 5 in MATH, None where it says "Level ?".
    """

    id: str
    problem: str
    solution: str
    answer: str | None
    subject: str
    level: int | None


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """A record that cannot be used. `line` counts rows from 1; None means the whole file."""

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        """`file:line: reason`, as compilers write it."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LoadedSplit:
    """Examples in an order that depends on file names and lines only; `source` is for people."""

    examples: list[MathExample]
    source: str
    skipped: list[SkippedRecord]

    def describe_skipped(self, limit: int = 5) -> str:
        """How many records were skipped and the first `limit` of them; empty if none was."""
        if not self.skipped:
            return ""
        lines = [f"skipped {counted(len(self.skipped), 'record')} of {self.source}:"]
        lines += [f"  {record}" for record in self.skipped[:limit]]
        if len(self.skipped) > limit:
            lines.append(f"  and {len(self.skipped) - limit} more")
        return "\n".join(lines)


def load_split(path: str, split: Split) -> LoadedSplit:
    """Reads the train or the test split at `path`.

    A record without a problem or a solution is skipped, and in the test split one without an
    answer too; a test record with an `answer` field needs no solution.

    Raises:
        DataError: no such split (the message lists every path tried), an unreadable file, or
            not one usable record.
    """
    return _load(find_files(path, split), split)


def load_evaluation(path: str) -> LoadedSplit:
    """Reads test problems from a path given for evaluation alone (`--eval_data_path`).

    That is the test split; where nothing at `path` names a split, or `path` is one file, all of
    it. Same checks and errors as `load_split(path, "test")`.
    """
    return _load(find_files(path, "test", any_split=True), "test")


def has_split(path: str, split: Split) -> bool:
    """Whether `path` holds files of `split`; looks at names only.

    Raises:
        DataError: `path` does not exist, or holds the split twice.
    """
    return bool(select_files(path, split).names)


def _load(files: SplitFiles, split: Split) -> LoadedSplit:
    examples: dict[str, MathExample] = {}
    skipped: list[SkippedRecord] = []
    for name in files.names:
        file = os.path.join(files.root, name)
        for row in read_rows(file, columns=_FIELDS):
            try:
                example = _interpret(row, name=name, split=split)
                if example.id in examples:
                    raise _UnusableError(f"duplicate id {example.id}")
            except _UnusableError as error:
                skipped.append(SkippedRecord(file, row.number, str(error)))
            else:
                examples[example.id] = example
    loaded = LoadedSplit(list(examples.values()), _describe(files, split), skipped)
    if not loaded.examples:
        raise DataError(
            f"not one usable {split} record. Expected JSON objects with the text fields "
            f"`problem` (or `question`), `solution` and, for MATH, `type` and `level`.\n"
            f"{loaded.describe_skipped() or files.root + ' holds only empty lists.'}"
        )
    return loaded


class _UnusableError(Exception):
    """A record must be skipped, for the reason in the message. Never leaves this module."""


def _interpret(row: Row, *, name: str, split: Split) -> MathExample:
    """The example that a row of the file `name` (relative to the data path) describes."""
    if row.fault:
        raise _UnusableError(row.fault)
    if not isinstance(row.value, Mapping):
        raise _UnusableError(f"{_kind(row.value)}, expected a JSON object")
    record = row.value
    problem = _text(record, *_PROBLEM_FIELDS)
    solution = _text(record, "solution")
    answer = _text(record, "answer") or extract_boxed(solution) or None
    if not problem:
        raise _UnusableError(f"no `problem`{_fields_found(record)}")
    if not solution and not (split == "test" and answer):
        raise _UnusableError(f"no `solution`{_fields_found(record)}")
    if split == "test" and not answer:
        raise _UnusableError(r"no `answer` and no complete \boxed{} in the solution")
    return MathExample(
        id=_identify(record, row, name=name, split=split),
        problem=problem,
        solution=solution,
        answer=answer,
        subject=_text(record, *_SUBJECT_FIELDS) or _subject_of_folder(name),
        level=_level(record.get("level")),
    )


def _fields_found(record: Mapping[str, object]) -> str:
    return f" among the fields {', '.join(map(str, record))}" if record else ""


def _text(record: Mapping[str, object], *fields: str) -> str:
    """The first of `fields` that is there, as text; empty if none is. Whole numbers count."""
    for field in fields:
        value = record.get(field)
        if value is None or value == "":
            continue
        if isinstance(value, int) and not isinstance(value, bool) and field == "answer":
            return str(value)
        if not isinstance(value, str):
            raise _UnusableError(f"`{field}` is {_kind(value)}, expected text")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise _UnusableError(f"`{field}` holds half of a surrogate pair, not valid Unicode")
        if value.strip():
            return value
    return ""


def _identify(record: Mapping[str, object], row: Row, *, name: str, split: Split) -> str:
    own = record.get("unique_id")
    if isinstance(own, str) and own.strip():
        return own.removesuffix(".json")
    if row.number is not None:
        return f"{name}:{row.number}"
    stem = os.path.splitext(name)[0]
    return stem if stem.startswith(f"{split}/") else f"{split}/{stem}"


def _level(value: object) -> int | None:
    """3 from 3, 3.0, "3" or "Level 3"; None from anything else, "Level ?" among it."""
    match = re.fullmatch(r"(?:level\s*)?([0-9]{1,2})(?:\.0)?", str(value).strip(), re.IGNORECASE)
    return int(match[1]) if match else None


def _subject_of_folder(name: str) -> str:
    """Subject in the words of MATH ("Counting & Probability") from the innermost folder."""
    folder = os.path.basename(os.path.dirname(name))
    words = folder.replace("_and_", "_&_").replace("_", " ").title()
    return words if words.lower() not in {"", "train", "test", "data"} else "unknown"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


def _describe(files: SplitFiles, split: Split) -> str:
    if len(files.names) == 1:
        return os.path.join(files.root, files.names[0])
    return f"{files.root} ({split}: {len(files.names)} {os.path.splitext(files.names[0])[1]} files)"

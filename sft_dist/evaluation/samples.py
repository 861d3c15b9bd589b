"""What the model wrote, for people: a few answers to look at, all of them to search.

    samples.md         the same few problems at every evaluation, prompt and answer in full
    samples.parquet    every answer with its grade, one row each

Both follow from the other files of an evaluation and may be deleted.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sft_dist.durable import write_atomically
from sft_dist.evaluation.generations import log_generations
from sft_dist.evaluation.results import GradeRow, Scored

MARKDOWN_FILE = "samples.md"
PARQUET_FILE = "samples.parquet"
NUM_SAMPLES = 8


def sample_table(rows: Sequence[Scored], count: int = NUM_SAMPLES) -> list[dict[str, Any]]:
    """The first answers to `count` problems, evenly spaced, so the same ones at every step."""
    first = [row for row in rows if row.completion.sample == 0]
    chosen = sorted({i * len(first) // count for i in range(count)}) if first else []
    return _table([first[i] for i in chosen])


def write_samples(directory: Path, title: str, rows: Sequence[Scored]) -> None:
    """Write both files into the directory of an evaluation. `title` says what was scored."""
    write_atomically(directory / MARKDOWN_FILE, _markdown(title, sample_table(rows)))
    _write_parquet(directory / PARQUET_FILE, rows)


def _table(rows: Sequence[Scored]) -> list[dict[str, Any]]:
    """`log_generations` on answers that have been graded: the grades are looked up."""
    grades = {(row.completion.response, row.grade.gold): row.grade for row in rows}
    logged = log_generations(
        [row.problem.prompt for row in rows],
        [row.completion.response for row in rows],
        [row.grade.gold for row in rows],
        reward_fn=lambda response, gold: _rewards(grades[response, gold]),
        token_entropies=[row.completion.mean_token_entropy or 0.0 for row in rows],
        response_lengths=[row.completion.num_tokens for row in rows],
    )
    names = [{"id": row.problem.id} for row in rows]
    return [{**name, **row} for name, row in zip(names, logged["rows"], strict=True)]


def _rewards(grade: GradeRow) -> Mapping[str, Any]:
    return {
        "extracted": grade.extracted,
        "verdict": grade.verdict,
        "format_reward": grade.format_reward,
        "answer_reward": grade.answer_reward,
        "reward": grade.reward,
    }


def _markdown(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    parts = [f"# {title}"]
    for row in rows:
        parts += [
            f"## {row['id']}: {row['verdict']}",
            f"Gold `{row['ground_truth']}`, found `{row['extracted']}`; {row['response_length']} "
            f"tokens, entropy {row['token_entropy']:.3f} nats.",
            _fenced(row["prompt"]),
            _fenced(row["response"]),
        ]
    return "\n\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    """A code block that nothing in `text` can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _write_parquet(path: Path, rows: Sequence[Scored]) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([_whole_row(row) for row in rows], schema=_schema(pyarrow))
    partial = path.with_name(f".{path.name}.tmp")
    parquet.write_table(table, partial)
    os.replace(partial, path)


def _whole_row(row: Scored) -> dict[str, Any]:
    problem, completion, grade = row.problem, row.completion, row.grade
    return {
        "id": problem.id,
        "sample": completion.sample,
        "subject": problem.subject,
        "level": problem.level,
        "prompt": problem.prompt,
        "response": completion.response,
        "gold": grade.gold,
        **_rewards(grade),
        "token_entropy": completion.mean_token_entropy,
        "response_length": completion.num_tokens,
        "finish_reason": completion.finish_reason,
    }


def _schema(pyarrow: Any) -> Any:
    """Of a file without rows too; a column that is None throughout keeps its type."""
    text, number, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    columns = {
        "id": text, "sample": whole, "subject": text, "level": whole, "prompt": text,
        "response": text, "gold": text, "extracted": text, "verdict": text,
        "format_reward": number, "answer_reward": number, "reward": number,
        "token_entropy": number, "response_length": whole, "finish_reason": text,
    }  # fmt: skip
    return pyarrow.schema(list(columns.items()))

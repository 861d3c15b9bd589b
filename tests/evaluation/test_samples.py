"""The files for people: the same problems at every step, nothing lost, nothing that breaks them."""

from pyarrow import parquet

from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.results import GradeRow, scored
from sft_dist.evaluation.samples import sample_table, write_samples
from tests.evaluation.models import problem


def rows(count, *, verdict="wrong", text="text of {}", tokens=None):
    """`count` graded answers to the problems p0, p1, ..."""
    right = float(verdict == "correct")
    names = [f"p{i}" for i in range(count)]
    problems = [problem(name, "2+2=") for name in names]
    completions = [
        Completion(name, text.format(name), tokens or i + 1, "stop", 0.5)
        for i, name in enumerate(names)
    ]
    grades = [GradeRow(name, verdict, "text", "x", "4", 1.0, right, right) for name in names]
    return scored(problems, completions, grades)


def test_the_table_holds_the_same_problems_whatever_was_answered():
    first, second = sample_table(rows(100)), sample_table(rows(100, verdict="correct", tokens=1))
    assert [row["id"] for row in first] == [f"p{i * 100 // 8}" for i in range(8)]
    assert [row["id"] for row in second] == [row["id"] for row in first]
    assert first[1]["response"] == "text of p12"
    assert first[1]["response_length"] == 13
    assert (first[1]["verdict"], second[1]["verdict"]) == ("wrong", "correct")
    assert len(sample_table(rows(4))) == 4
    assert sample_table([]) == []


def test_the_table_has_the_columns_of_log_generations():
    (row,) = sample_table(rows(1))
    assert set(row) >= {
        "prompt", "response", "ground_truth", "format_reward", "answer_reward", "reward",
        "token_entropy", "response_length",
    }  # fmt: skip


def test_every_answer_is_in_the_parquet_file(tmp_path):
    write_samples(tmp_path, "Step 5", rows(20))
    stored = parquet.read_table(tmp_path / "samples.parquet").to_pylist()
    assert [row["id"] for row in stored] == [f"p{i}" for i in range(20)]
    assert stored[3]["response"] == "text of p3"
    assert stored[3]["reward"] == 0.0
    assert not list(tmp_path.glob(".*"))


def test_an_answer_cannot_end_its_block_of_the_page(tmp_path):
    write_samples(tmp_path, "Step 5", rows(1, text="```\n# not a heading of {}\n````"))
    page = (tmp_path / "samples.md").read_text()
    assert page.startswith("# Step 5\n\n## p0: wrong\n")
    inside = page.split("`````text\n")[1].split("\n`````")[0]
    assert inside == "```\n# not a heading of p0\n````"


def test_an_evaluation_of_nothing_has_files_too(tmp_path):
    write_samples(tmp_path, "Step 5", [])
    assert parquet.read_table(tmp_path / "samples.parquet").num_rows == 0
    assert (tmp_path / "samples.md").read_text() == "# Step 5\n"

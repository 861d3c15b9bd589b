import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sft_dist.data import layouts
from sft_dist.data.records import SkippedRecord, has_split, load_evaluation, load_split
from sft_dist.errors import DataError


def record(**changes):
    base = {
        "problem": "What is $1+1$?",
        "level": "Level 3",
        "type": "Algebra",
        "solution": r"It is $\boxed{2}$.",
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def ids(loaded):
    return [example.id for example in loaded.examples]


@pytest.fixture
def math(tmp_path):
    root = tmp_path / "MATH"
    for subject, numbers in {"prealgebra": [3], "algebra": [10, 2, 1]}.items():
        for number in numbers:
            write_json(root / "train" / subject / f"{number}.json", record(problem=f"{number}"))
    write_json(root / "test" / "geometry" / "7.json", record(type="Geometry"))
    return root


def test_original_layout_is_read_in_order_of_subject_then_number(math):
    loaded = load_split(str(math), "train")
    assert ids(loaded) == [
        "train/algebra/1",
        "train/algebra/2",
        "train/algebra/10",
        "train/prealgebra/3",
    ]
    assert ids(load_split(str(math), "test")) == ["test/geometry/7"]


def test_order_does_not_depend_on_the_order_of_the_file_system(math, monkeypatch):
    expected = ids(load_split(str(math), "train"))
    walk = os.walk

    def reversed_walk(*args, **kwargs):
        for folder, subfolders, files in walk(*args, **kwargs):
            subfolders.sort(reverse=True)
            yield folder, subfolders, sorted(files, reverse=True)

    monkeypatch.setattr(layouts.os, "walk", reversed_walk)
    assert ids(load_split(str(math), "train")) == expected


def test_ids_are_the_same_when_the_split_folder_itself_is_given(math):
    assert ids(load_split(str(math / "train"), "train")) == ids(load_split(str(math), "train"))


def test_a_test_folder_is_never_taken_for_training_data(math):
    for path in (math / "test", math / "test" / "geometry", math / "test/geometry/7.json"):
        assert not has_split(str(path), "train")
        assert len(load_split(str(path), "test").examples) == 1


def test_fields_of_an_example_are_those_of_the_record(tmp_path):
    write_json(tmp_path / "train" / "algebra" / "5.json", record(problem=" x\n", level="Level 5"))
    (example,) = load_split(str(tmp_path), "train").examples
    assert (example.problem, example.solution) == (" x\n", r"It is $\boxed{2}$.")
    assert (example.answer, example.subject, example.level) == ("2", "Algebra", 5)


def test_answer_is_the_last_balanced_box():
    from sft_dist.data.records import _interpret
    from sft_dist.data.rows import Row

    solution = r"\boxed{1} and \boxed{\frac{1}{2}} but not \boxed{3"
    row = Row(1, record(solution=solution))
    assert _interpret(row, name="train.jsonl", split="train").answer == r"\frac{1}{2}"


def test_math_500_rows_keep_their_own_answer_subject_level_and_id(tmp_path):
    row = {
        "problem": "p",
        "solution": r"s $\boxed{(3,\pi)}$",
        "answer": r"\left( 3, \pi \right)",
        "subject": "Precalculus",
        "level": 2,
        "unique_id": "test/precalculus/807.json",
    }
    write_lines(tmp_path / "test.jsonl", [row])
    (example,) = load_split(str(tmp_path), "test").examples
    assert example.id == "test/precalculus/807"
    assert (example.answer, example.subject, example.level) == (
        r"\left( 3, \pi \right)",
        "Precalculus",
        2,
    )


@pytest.mark.parametrize(
    ("level", "expected"),
    [("Level 3", 3), ("Level ?", None), (4, 4), (4.0, 4), ("2", 2), (None, None), ([5], None)],
)
def test_level_is_a_number_or_none(tmp_path, level, expected):
    write_lines(tmp_path / "train.jsonl", [record(level=level)])
    assert load_split(str(tmp_path), "train").examples[0].level == expected


def test_question_and_whole_number_answer_are_accepted(tmp_path):
    row = {"question": "q", "solution": "no box", "answer": 33}
    write_lines(tmp_path / "test.jsonl", [row])
    (example,) = load_split(str(tmp_path), "test").examples
    assert (example.problem, example.answer, example.subject) == ("q", "33", "unknown")


def test_subject_comes_from_the_folder_when_the_record_has_none(tmp_path):
    path = tmp_path / "train" / "counting_and_probability" / "1.json"
    write_json(path, record(type=None))
    assert load_split(str(tmp_path), "train").examples[0].subject == "Counting & Probability"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.jsonl", "train.jsonl:1"),
        ("math_train.jsonl", "math_train.jsonl:1"),
        ("train/part-0.jsonl", "train/part-0.jsonl:1"),
        ("data/train-00000-of-00001.parquet", "data/train-00000-of-00001.parquet:1"),
        ("algebra/train-00000-of-00001.parquet", "algebra/train-00000-of-00001.parquet:1"),
        ("train.json", "train.json:1"),
        ("algebra/12.json", "train/algebra/12"),
        ("problems.jsonl", "problems.jsonl:1"),
    ],
)
def test_each_layout_gives_ids_relative_to_the_path(tmp_path, name, expected):
    path = tmp_path / name
    if name.endswith(".parquet"):
        write_parquet(path, [record()])
    elif name.endswith(".jsonl"):
        write_lines(path, [record()])
    else:
        write_json(path, [record()] if name == "train.json" else record())
    assert ids(load_split(str(tmp_path), "train")) == [expected]
    assert not has_split(str(tmp_path), "test")


def test_parquet_shards_are_read_in_numeric_order_and_other_columns_are_ignored(tmp_path):
    for shard in (10, 2):
        rows = [record(problem=f"{shard}", embedding=[0.5])]
        write_parquet(tmp_path / "data" / f"train-{shard}-of-11.parquet", rows)
    loaded = load_split(str(tmp_path), "train")
    assert [example.problem for example in loaded.examples] == ["2", "10"]


def test_json_lines_under_the_name_json_are_read(tmp_path):
    write_lines(tmp_path / "train.json", [record(), record(problem="second")])
    assert ids(load_split(str(tmp_path), "train")) == ["train.json:1", "train.json:2"]


def test_line_separators_inside_a_string_do_not_cut_a_line(tmp_path):
    text = json.dumps(record(problem="a\u2028b"), ensure_ascii=False)
    (tmp_path / "train.jsonl").write_text(text + "\r\n\r\n" + text, encoding="utf-8")
    loaded = load_split(str(tmp_path), "train")
    assert ids(loaded) == ["train.jsonl:1", "train.jsonl:3"]
    assert loaded.examples[0].problem == "a\u2028b"
    assert not loaded.skipped


def test_byte_order_mark_is_accepted_in_every_text_format(tmp_path):
    mark = b"\xef\xbb\xbf"
    text = json.dumps(record()).encode()
    (tmp_path / "lines_train.jsonl").write_bytes(mark + text)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.json").write_bytes(mark + text)
    for path in (tmp_path / "lines_train.jsonl", tmp_path / "train"):
        loaded = load_split(str(path), "train")
        assert (len(loaded.examples), loaded.skipped) == (1, [])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (json.dumps(record(problem=None)), "no `problem`"),
        (json.dumps(record(problem="  ")), "no `problem`"),
        (json.dumps(record(solution=None)), "no `solution`"),
        (json.dumps(record(solution=["a", "b"])), "`solution` is a list, expected text"),
        (json.dumps(record(problem={"text": "p"})), "`problem` is an object, expected text"),
        (json.dumps(record(problem="\ud835")), "`problem` holds half of a surrogate pair"),
        ("[1]", "a list, expected a JSON object"),
        ("null", "null, expected a JSON object"),
        ('{"problem": "p", ', "not JSON"),
        ("[" * 200_000, "not readable as JSON"),
    ],
)
def test_an_unusable_record_is_named_by_file_and_line_and_costs_only_itself(tmp_path, bad, reason):
    path = tmp_path / "train.jsonl"
    good = json.dumps(record())
    path.write_text(f"{good}\n{bad}\n{good}\n", encoding="utf-8")
    loaded = load_split(str(path), "train")
    assert ids(loaded) == ["train.jsonl:1", "train.jsonl:3"]
    (skipped,) = loaded.skipped
    assert (skipped.file, skipped.line) == (str(path), 2)
    assert reason in skipped.reason
    assert f"{path}:2" in loaded.describe_skipped()


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    good = json.dumps(record()).encode()
    (tmp_path / "train.jsonl").write_bytes(b'{"problem": "\xff"}\n' + good)
    loaded = load_split(str(tmp_path), "train")
    assert [(skip.line, skip.reason[:9]) for skip in loaded.skipped] == [(1, "not UTF-8")]
    assert len(loaded.examples) == 1


def test_empty_and_broken_files_are_named_without_a_line(math):
    empty, broken = math / "train/algebra/4.json", math / "train/algebra/5.json"
    empty.write_bytes(b"")
    broken.write_text("{")
    loaded = load_split(str(math), "train")
    assert len(loaded.examples) == 4
    assert [(s.file, s.line) for s in loaded.skipped] == [(str(empty), None), (str(broken), None)]
    assert loaded.skipped[0] == SkippedRecord(str(empty), None, "empty file")


def test_a_broken_parquet_file_is_named(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [record()])
    (tmp_path / "train-1.parquet").write_bytes(b"PAR1 not really")
    loaded = load_split(str(tmp_path), "train")
    assert ids(loaded) == ["train-0.parquet:1"]
    assert loaded.skipped[0].file == str(tmp_path / "train-1.parquet")


def test_a_box_is_required_of_a_test_record_only(tmp_path):
    rows = [record(solution="no box"), record()]
    write_lines(tmp_path / "train.jsonl", rows)
    write_lines(tmp_path / "test.jsonl", rows)
    train = load_split(str(tmp_path), "train")
    assert [example.answer for example in train.examples] == [None, "2"]
    test = load_split(str(tmp_path), "test")
    assert ids(test) == ["test.jsonl:2"]
    assert test.skipped[0].line == 1
    assert "boxed" in test.skipped[0].reason


def test_a_test_record_with_an_answer_needs_no_solution(tmp_path):
    write_lines(tmp_path / "test.jsonl", [{"problem": "p", "answer": "4"}])
    assert load_split(str(tmp_path), "test").examples[0].answer == "4"


def test_the_second_record_with_an_id_is_skipped(tmp_path):
    rows = [record(unique_id="a"), record(problem="other", unique_id="a")]
    write_lines(tmp_path / "train.jsonl", rows)
    loaded = load_split(str(tmp_path), "train")
    assert ids(loaded) == ["a"]
    assert loaded.skipped[0].reason == "duplicate id a"


def test_nothing_usable_is_an_error_that_names_the_records(tmp_path):
    write_lines(tmp_path / "train.jsonl", [{"text": "something else"}] * 7)
    with pytest.raises(DataError, match=r"train\.jsonl:1: no `problem`(.|\n)*and 2 more"):
        load_split(str(tmp_path), "train")


def test_a_missing_path_is_an_error_that_says_what_was_tried(tmp_path):
    with pytest.raises(DataError, match="nowhere") as error:
        load_split(str(tmp_path / "nowhere"), "train")
    assert "does not exist" in str(error.value)
    assert "JSONL" in str(error.value)


def test_a_missing_train_split_lists_the_patterns_tried_and_the_files_found(tmp_path):
    write_lines(tmp_path / "validation.jsonl", [record()])
    with pytest.raises(DataError) as error:
        load_split(str(tmp_path), "train")
    assert f"{tmp_path}/train/**" in str(error.value)
    assert f"{tmp_path}/**/*train*" in str(error.value)
    assert "validation.jsonl" in str(error.value)


def test_a_missing_test_split_says_how_to_get_one(tmp_path):
    write_lines(tmp_path / "all.jsonl", [record()])
    assert has_split(str(tmp_path / "all.jsonl"), "train")
    with pytest.raises(DataError, match=r"--eval_data_path(.|\n)*--holdout N"):
        load_split(str(tmp_path / "all.jsonl"), "test")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "math.csv").write_text("problem,solution\n")
    with pytest.raises(DataError, match=r"\.jsonl"):
        load_split(str(tmp_path / "math.csv"), "train")


def test_the_same_split_in_two_forms_is_refused(math):
    write_lines(math / "train.jsonl", [record()])
    with pytest.raises(DataError, match="more than once"):
        load_split(str(math), "train")


def test_a_file_beside_the_plainly_named_one_is_left_out_and_named(tmp_path, caplog):
    write_lines(tmp_path / "train.jsonl", [record()])
    write_lines(tmp_path / "train_small.jsonl", [record()])
    assert ids(load_split(str(tmp_path), "train")) == ["train.jsonl:1"]
    assert "train_small.jsonl" in caplog.text


def test_hidden_files_and_descriptions_of_the_data_set_are_not_data(math):
    write_json(math / "dataset_info.json", {"features": {}})
    write_json(math / "train" / "algebra" / "._1.json", {})
    write_json(math / ".cache" / "train" / "1.json", record())
    loaded = load_split(str(math), "train")
    assert (len(loaded.examples), loaded.skipped) == (4, [])


def test_evaluation_path_is_read_whole_when_it_names_no_split(tmp_path):
    path = tmp_path / "aime.jsonl"
    write_lines(path, [record()])
    assert ids(load_evaluation(str(path))) == ["aime.jsonl:1"]


def test_evaluation_path_of_a_data_set_gives_its_test_split_only(math):
    assert ids(load_evaluation(str(math))) == ["test/geometry/7"]


def test_a_hub_id_is_downloaded_and_read_like_a_directory(tmp_path, monkeypatch):
    import huggingface_hub

    write_parquet(tmp_path / "default" / "test-00000-of-00001.parquet", [record()])
    asked = []

    def download(repo_id, *, repo_type, allow_patterns):
        asked.append((repo_id, repo_type, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert len(load_split("someone/math", "test").examples) == 1
    assert asked == [("someone/math", "dataset", ["*.json", "*.jsonl", "*.parquet"])]


def test_a_hub_id_without_network_names_the_local_path_too(tmp_path, monkeypatch):
    import huggingface_hub

    def download(*_args, **_kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network and not cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        load_split("someone/math", "train")
    assert str(tmp_path / "someone" / "math") in str(error.value)
    assert "no network and not cached" in str(error.value)


def test_an_unreadable_file_is_an_error_not_a_smaller_data_set(math, monkeypatch):
    # On a shared file system a rank that skips it would train on other data than the rest.
    bad = str(math / "train/algebra/2.json")
    real_open = open

    def failing_open(file, *args, **kwargs):
        if str(file) == bad:
            raise PermissionError(13, "Permission denied", bad)
        return real_open(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", failing_open)
    with pytest.raises(DataError, match="Permission denied"):
        load_split(str(math), "train")


def test_a_path_with_a_tilde_is_expanded(math, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(math).parent))
    assert len(load_split("~/MATH", "train").examples) == 4


def test_a_file_without_a_split_beside_named_ones_is_not_training_data(tmp_path):
    for name in ("train.jsonl", "test.jsonl", "all.jsonl"):
        write_lines(tmp_path / name, [record()])
    assert ids(load_split(str(tmp_path), "train")) == ["train.jsonl:1"]


def test_evaluation_folder_in_which_nothing_names_a_split_is_read_whole(tmp_path):
    write_lines(tmp_path / "aime" / "problems.jsonl", [record()])
    assert ids(load_evaluation(str(tmp_path / "aime"))) == ["problems.jsonl:1"]

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from sft_dist.evaluation.request import (
    EvaluationRequest,
    Sampling,
    problems_file,
    problems_text,
    read_problems,
)
from tests.evaluation.models import problems

REQUEST = EvaluationRequest(
    step=500,
    model_dir="/runs/a/checkpoint-500",
    weights_fingerprint="f" * 64,
    prompt_name="default",
    form="boxed",
    sampling=Sampling(max_new_tokens=512, stop_token_ids=(1, 2)),
    problems_file="evaluations/problems-abc.jsonl",
    num_problems=5,
)


@pytest.mark.parametrize(
    "change",
    [
        {"weights_fingerprint": "e" * 64},
        {"prompt_name": "r1_zero"},
        {"form": "r1_zero"},
        {"sampling": Sampling(max_new_tokens=256, stop_token_ids=(1, 2))},
        {"sampling": Sampling(max_new_tokens=512, stop_token_ids=(1,))},
        {"sampling": Sampling(max_new_tokens=512, stop_token_ids=(1, 2), temperature=1.0)},
        {"problems_file": "evaluations/problems-def.jsonl"},
    ],
)
def test_the_spec_changes_with_whatever_changes_the_completions(change):
    assert replace(REQUEST, **change).spec != REQUEST.spec


def test_the_spec_does_not_depend_on_where_the_weights_lie():
    assert replace(REQUEST, model_dir="/elsewhere").spec == REQUEST.spec


def test_a_request_survives_json():
    assert EvaluationRequest.from_json(json.loads(json.dumps(REQUEST.to_json()))) == REQUEST


def test_a_request_of_another_version_is_refused():
    with pytest.raises(TypeError):
        EvaluationRequest.from_json(REQUEST.to_json() | {"unknown": 1})


def test_problems_survive_their_file_and_its_name_follows_the_content(tmp_path):
    items = problems(3)
    text = problems_text(items)
    path = tmp_path / "problems.jsonl"
    path.write_text(text)
    assert read_problems(path) == items
    other = [replace(items[0], answer="2"), *items[1:]]
    assert problems_file(problems_text(other)) != problems_file(text)


def test_text_with_line_separators_stays_on_one_line(tmp_path):
    item = replace(problems(1)[0], problem="a\nb\u2028c\x85d", answer=None, level=None)
    path = tmp_path / "problems.jsonl"
    path.write_text(problems_text([item]), encoding="utf-8")
    assert read_problems(path) == [item]


def test_the_light_modules_import_no_torch():
    code = (
        "import sys, sft_dist.evaluation.request, sft_dist.evaluation.client\n"
        "assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""The pool grades many, in order, and outlives workers that hang, die or lie."""

import sys
import textwrap
import threading
import time

import pytest

from sft_dist.errors import EvaluationError
from sft_dist.grading import GradingPool, grade

PAIRS = [(rf"\boxed{{{number}}}", str(number + number % 2)) for number in range(60)]


def stub(tmp_path, body):
    """Write a worker that answers with our grader except where `body` says otherwise."""
    lines = [
        "import json, os, sys, time",
        "from dataclasses import asdict",
        "from sft_dist.grading import grade",
        "print('ready', flush=True)",
        "for line in sys.stdin:",
        "    task = json.loads(line)",
        "    text = task['response']",
        textwrap.indent(textwrap.dedent(body), "    "),
        "    print(json.dumps(asdict(grade(text, task['gold'], form=task['form']))), flush=True)",
    ]
    path = tmp_path / "worker.py"
    path.write_text("\n".join(lines), encoding="utf-8")
    return [sys.executable, str(path)]


def test_many_are_graded_in_order_and_as_in_process():
    with GradingPool(num_workers=2) as pool:
        assert pool.grade_many(PAIRS) == [grade(*pair) for pair in PAIRS]
        assert pool.grade_many([]) == []
        tagged = [("a</think> <answer>1</answer>", "1"), ("1", "1")]
        verdicts = [result.verdict for result in pool.grade_many(tagged, form="r1_zero")]
        assert verdicts == ["correct", "no_answer"]


def test_the_five_verdicts_are_counted_apart(tmp_path):
    command = stub(tmp_path, "if 'hang' in text: time.sleep(60)")
    responses = [r"\boxed{1}", r"\boxed{2}", "1", r"\boxed{\foo}", r"\boxed{hang}", r"\boxed{1}"]
    with GradingPool(num_workers=2, timeout_seconds=1.0, worker_command=command) as pool:
        start = time.monotonic()
        results = pool.grade_many([(response, "1") for response in responses])
        assert time.monotonic() - start < 20
    assert [result.verdict for result in results] == [
        "correct",
        "wrong",
        "no_answer",
        "unparseable",
        "timeout",
        "correct",
    ]
    assert results[4].extracted == "hang"
    assert results[4].format_ok
    assert results[4].stage == "worker"


def test_a_worker_that_dies_is_replaced_and_only_its_response_suffers(tmp_path):
    command = stub(tmp_path, "if 'die' in text: os._exit(9)")
    pairs = [*PAIRS[:5], (r"\boxed{die}", "1"), *PAIRS[5:10]]
    with GradingPool(num_workers=1, worker_command=command) as pool:
        results = pool.grade_many(pairs)
    assert (results[5].verdict, results[5].stage) == ("unparseable", "worker")
    assert results[:5] + results[6:] == [grade(*pair) for pair in PAIRS[:10]]


def test_a_worker_that_writes_something_else_is_replaced(tmp_path):
    command = stub(tmp_path, "if 'babble' in text: print('no json', flush=True)")
    with GradingPool(num_workers=1, worker_command=command) as pool:
        results = pool.grade_many([(r"\boxed{babble}", "1"), (r"\boxed{1}", "1")])
    assert [result.verdict for result in results] == ["unparseable", "correct"]


def test_a_response_whose_worker_died_once_is_tried_again(tmp_path):
    marker = tmp_path / "died"
    body = f"""
        if 'once' in text and not os.path.exists({str(marker)!r}):
            open({str(marker)!r}, 'w').close()
            os._exit(9)
    """
    with GradingPool(num_workers=1, worker_command=stub(tmp_path, body)) as pool:
        results = pool.grade_many([(r"\boxed{\text{once}}", r"\text{once}")])
    assert results[0].verdict == "correct"


def test_an_exception_in_a_worker_costs_one_response(tmp_path):
    body = """
        if 'raise' in text:
            print(json.dumps({'error': 'boom'}), flush=True)
            continue
    """
    with GradingPool(num_workers=1, worker_command=stub(tmp_path, body)) as pool:
        results = pool.grade_many([(r"\boxed{raise}", "1"), (r"\boxed{1}", "1")])
    assert [result.verdict for result in results] == ["unparseable", "correct"]


def test_workers_that_cannot_start_are_an_error_and_not_an_endless_loop():
    with (
        GradingPool(num_workers=1, worker_command=[sys.executable, "-c", "pass"]) as pool,
        pytest.raises(EvaluationError, match="run this by hand"),
    ):
        pool.grade_many(PAIRS)


def test_the_pool_works_from_a_thread_and_stays_usable():
    results = []
    with GradingPool(num_workers=1) as pool:
        thread = threading.Thread(target=lambda: results.extend(pool.grade_many(PAIRS)))
        thread.start()
        thread.join(timeout=60)
        assert results == [grade(*pair) for pair in PAIRS]
        assert pool.grade_many(PAIRS[:3]) == results[:3]


def test_closing_ends_the_processes():
    pool = GradingPool(num_workers=2)
    pool.grade_many(PAIRS)
    processes = [worker.process for worker in pool.workers]
    assert len(processes) == 2
    pool.close()
    assert all(process.poll() is not None for process in processes)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="num_workers"):
        GradingPool(num_workers=0)
    with GradingPool() as pool, pytest.raises(ValueError, match="form"):
        pool.grade_many(PAIRS, form="prose")

"""SIGKILL before every file operation of a save: nothing is lost, nothing is half there."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ALLOWED = re.compile(
    r"checkpoint-\d+|weights-\d+|\.(tmp|removing)-(checkpoint|weights)-\d+|\.superseded|\.exports"
    r"|\..*\.tmp"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed_saves", str(tmp_path_factory.mktemp("kills"))],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_every_operation_of_three_kinds_of_save_was_the_last_one_once(report):
    assert all(kill["died"] for kill in report)
    assert len(report) > 150
    kinds = Counter(kill["operation"].rpartition(" ")[0] for kill in report)
    for kind in ("open", "write", "half write", "fsync", "rename", "replace", "mkdir", "link",
                 "unlink", "rmdir"):  # fmt: skip
        assert kinds[kind] > 0, kinds
    assert len({kill["scenario"] for kill in report}) == 3


def test_what_is_called_a_checkpoint_is_whole(report):
    assert not [kill for kill in report if kill["damaged"]]


def test_all_else_has_a_temporary_name_or_one_that_promises_less(report):
    for kill in report:
        assert all(ALLOWED.fullmatch(name) for name in kill["entries"]), kill


def test_there_is_never_less_than_before_the_save(report):
    for kill in report:
        found = int(kill["latest"].rpartition("-")[2])
        assert found >= int(kill["had"].rpartition("-")[2]), kill


def test_the_next_attempt_ends_where_this_one_would_have(report):
    for kill in report:
        again = kill["again"]
        assert again["latest"] == kill["newest"], kill
        assert not again["damaged"], kill
        left = [n for n in again["entries"] if n.startswith((".tmp-", ".removing-"))]
        assert not left, kill

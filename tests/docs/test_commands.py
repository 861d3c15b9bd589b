"""Every command on a page: its flags are those of today, and a test runs the like or says why not.

Those with Qwen2.5-Math-1.5B or 8 GPUs cannot run here: their settings are read by the real parser
with all its checks, and what they start is run by the tests in `RUN_BY` with other sizes.
"""

import importlib.util
import re

import pytest

from sft_dist.arguments import COMMANDS, FLAGS, parse_evaluate_config, parse_train_config
from sft_dist.config import ScoringConfig
from sft_dist.engines.ds_config import ds_config_faults
from sft_dist.validation import config_faults
from tests.docs.commands import PAGES, ROOT, commands_of

FOUND = [command for page in PAGES for command in commands_of(page)]

RUN_BY = {
    "sft_dist.train": "tests/end_to_end/test_train.py",
    "sft_dist.evaluate": "tests/end_to_end/test_evaluate.py",
    "sft_dist.preflight": "tests/test_preflight.py",
    "sft_dist.report": "tests/reporting/test_report.py",
    "sft_dist.status": "tests/test_status.py",
    "launch.sweep": "tests/scripts/test_real_sweep.py",
    "launch.virtual_slurm": "tests/scripts/conftest.py",
    "tests.faults.soak": "tests/faults/test_soak.py",
    "tests.faults.signals": "tests/faults/test_signals.py",
    "tests.faults.elastic_run": "tests/faults/test_elastic.py",
}
NOT_RUN = {
    "make demo": "minutes; tests/end_to_end trains its model on a part of its data",
    "make test": "it is what runs this",
    "benchmarks": "minutes to hours on a quiet machine; each figure on the page has its date",
    "tests.engines.test_literal_budgets": "18 minutes; test_one_curve.py runs smaller budgets",
    "pip": "changes the environment",
    "sudo": "changes the machine",
    "tail": "the system's",
}


def owner(target):
    """The entry of `NOT_RUN` for a target, where there is one."""
    return "benchmarks" if target.startswith("benchmarks.") else target


def test_the_commands_of_the_pages_are_found():
    assert len(FOUND) > 40
    assert {"make demo", "sft_dist.train", "launch.sweep"} <= {c.target for c in FOUND}


@pytest.mark.parametrize("command", FOUND, ids=str)
def test_a_test_runs_the_like_or_it_is_said_why_not(command):
    target = command.target
    if path := RUN_BY.get(target):
        assert (ROOT / path).exists()
    else:
        assert owner(target) in NOT_RUN, f"neither run nor explained: {command}"
    if target.startswith("make "):
        assert re.search(rf"^{target[5:]}:", (ROOT / "Makefile").read_text(), flags=re.M)


@pytest.mark.parametrize("command", [c for c in FOUND if "." in c.target], ids=str)
def test_its_flags_are_known_to_what_it_starts(command):
    spec = importlib.util.find_spec(command.target)
    assert spec is not None, f"no module {command.target}"
    with open(spec.origin) as file:
        own = set(re.findall(r'"--([a-z][a-z_-]*)"', file.read()))
    if command.target in ("sft_dist.train", "sft_dist.evaluate", "sft_dist.preflight"):
        own |= {*FLAGS, *COMMANDS, *ScoringConfig.__dataclass_fields__}
        own |= {f"no_{name}" for name, kind in FLAGS.items() if kind is bool}
    for flag in re.findall(r"(?<!\S)\[?--([a-z][\w-]*)", " ".join(command.flags)):
        assert flag in own, f"{command}: {command.target} has no --{flag}"


def settled(words):
    """Flags of a page, a Hub id in place of each path of the reader's."""
    reader = r"^(MODEL|MATH|QWEN2-0.5B|outputs/demo/(model|data)|\.\.\.)$"
    return [re.sub(reader, "owner/name", word) for word in words]


@pytest.mark.parametrize(
    "command",
    [c for c in FOUND if c.target == "sft_dist.train" and "--data_path" in c.flags],
    ids=str,
)
def test_the_settings_of_a_training_command_have_no_fault(command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    config = parse_train_config(settled(command.flags), checks=(config_faults, ds_config_faults))
    assert config.data.data_path


@pytest.mark.parametrize(
    "command",
    [c for c in FOUND if c.target == "sft_dist.evaluate" and "--data_path" in c.flags],
    ids=str,
)
def test_the_settings_of_an_evaluation_have_no_fault(command):
    config, _ = parse_evaluate_config(settled(command.flags), checks=())
    assert config.model.model_path

"""The shape of the package, read from its source: imports go downward only, rooms stay small.

The order is that of DESIGN.md, section 3, with the modules it does not name put where they stand
in the order of imports today:

* `arguments` and `validation` are directly above `config` and `errors`: they run before torch;
* `functions` (the public functions of CS336) is a room of its own beside `engines`;
* `preparation` (data, plan, schedule of a run) and `reporting` (what became of it) are above the
  rooms, `resume` and `loop` above them, the commands on top.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sft_dist"
MAX_LINES = 300

ROOMS = ["engines", "evaluation", "tracking", "runtime", "checkpoint", "functions"]
LAYERS = [
    ["config", "errors"],
    ["cpu_allocator", "durable", "garbage", "paths"],
    ["arguments", "validation"],
    ["grading"],
    [
        "attention",
        "cpu_precision",
        "data",
        "lean_layers",
        "loss",
        "loss_spikes",
        "model",
        "normalization",
        "optimizer_state",
        "out_of_memory",
        "schedule",
        "train_state",
        "fingerprint",
    ],
    ROOMS,
    ["preparation", "reporting", "step_faults", "step_rows"],
    ["snapshot_files"],
    ["saving"],
    ["resume", "loop"],
    ["ending", "opening", "preflight_checks"],
    ["train", "evaluate", "preflight", "report", "status"],
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
BELOW_NOTHING = {"__init__"}
"""The package itself: it names public functions of several layers and imports them lazily."""

HEAVY = {
    "deepspeed": {"engines/deepspeed_engine.py"},
    "vllm": {"evaluation/vllm_generator.py", "evaluation/vllm_extension.py"},
    "wandb": {"tracking/wandb_view.py"},
}
LIGHT = ["sft_dist", "sft_dist.grading", "sft_dist.config", "sft_dist.arguments",
         "sft_dist.validation", "sft_dist.evaluation.request", "sft_dist.train",
         "sft_dist.report", "sft_dist.status", "sft_dist.reporting.writer"]  # fmt: skip


def sources(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Full names of the modules that a file imports, wherever in it; relative ones resolved."""
    own = module_name(path).split(".")
    package = own if path.stem == "__init__" else own[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


def part_of(module):
    """`data` of `sft_dist.data.packing`; None outside the package."""
    names = module.split(".")
    return names[1] if names[0] == "sft_dist" and len(names) > 1 else None


def edges():
    """(file, its part, the part it imports) for every import between two parts."""
    for path in sources("sft_dist"):
        own = part_of(module_name(path)) or "__init__"
        for module in imports(path):
            other = part_of(module)
            if other is not None and other != own:
                yield path.relative_to(ROOT), own, other


def test_every_part_of_the_package_has_its_layer():
    parts = {part_of(module_name(path)) or "__init__" for path in sources("sft_dist")}
    assert parts - BELOW_NOTHING <= set(LAYER_OF), "say in LAYERS where the new part belongs"


def test_the_test_sees_the_imports():
    """An empty list of edges would hold every rule."""
    found = {(own, other) for _, own, other in edges()}
    assert {("loop", "checkpoint"), ("train", "loop"), ("model", "loss"), ("data", "errors"),
            ("evaluation", "grading")} <= found  # fmt: skip


def test_imports_go_downward_or_stay_in_the_layer():
    upward = [
        f"{path}: {own} -> {other}"
        for path, own, other in edges()
        if own not in BELOW_NOTHING and LAYER_OF.get(other, 99) > LAYER_OF.get(own, 99)
    ]
    assert not upward


def test_rooms_do_not_import_one_another():
    siblings = [
        f"{path}: {own} -> {other}" for path, own, other in edges() if {own, other} <= set(ROOMS)
    ]
    assert not siblings


def test_parts_of_one_layer_do_not_import_one_another_in_a_circle():
    found = {(own, other) for _, own, other in edges()}
    assert not [(a, b) for a, b in found if (b, a) in found]


def test_settings_and_their_faults_need_nothing_but_settings():
    needed = {
        other for _, own, other in edges() if own in ("config", "errors", "arguments", "validation")
    }
    assert needed <= {"config", "errors", "paths"}


def test_only_commands_read_the_command_line():
    readers = {own for _, own, other in edges() if other in ("arguments", "validation")}
    assert readers <= {*LAYERS[-1], "arguments", "validation"}


def test_nothing_imports_a_command():
    used = {(own, other) for _, own, other in edges() if other in LAYERS[-1]}
    assert not used


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_a_heavy_library_is_imported_in_one_place(library):
    found = {
        str(path.relative_to(ROOT))
        for path in sources("sft_dist", "launch")
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert found == {f"sft_dist/{path}" for path in HEAVY[library]}


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_a_heavy_library_is_imported_only_inside_what_needs_it(library):
    at_once = [
        name
        for path in HEAVY[library]
        for node in ast.parse((PACKAGE / path).read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        if name.split(".")[0] == library
    ]
    assert not at_once


def test_no_module_is_called_after_nothing_in_particular():
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    names = {part for path in sources("sft_dist", "launch") for part in path.with_suffix("").parts}
    assert not names & vague


@pytest.mark.parametrize("path", sources("sft_dist"), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in sources("sft_dist", "launch")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_what_runs_before_the_ranks_do_loads_no_torch():
    program = "import importlib, sys\n" + "".join(
        f"importlib.import_module({name!r})\n"
        f"assert 'torch' not in sys.modules, 'torch came with {name}'\n"
        for name in LIGHT
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr

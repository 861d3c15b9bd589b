"""The one-curve test at micro-batches of 1,024, 2,048 and 4,096 tokens, with nothing left out.

    pytest -m exhaustive tests/engines/test_literal_budgets.py

216 runs of 20 steps; `test_one_curve.py` is the part of it that every change runs.
"""

import pytest
import torch

from tests.engines.curve_recipes import STEPS, literal_budgets
from tests.engines.test_one_curve import (
    change_deviation,
    gradient_deviation,
    largest,
    launch,
)

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(7200)]
NAMES = [f"{name} on {ranks}" for ranks in (1, 2, 3) for name in literal_budgets(ranks)]


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    out = tmp_path_factory.mktemp("curves")
    for processes in (1, 2, 3):
        launch(out, processes, "literal_budgets")
    found = {path.stem: torch.load(path) for path in out.glob("*.pt")}
    worst = {kind: {} for kind in ("fp32", "bf16")}
    for name, curve in found.items():
        for measure, value in deviations(found, name, curve).items():
            worst[name[:4]][measure] = max(worst[name[:4]].get(measure, 0.0), value)
    print(f"\nlargest deviations of {len(found)} curves: {worst}")
    return found


def deviations(curves, name, curve):
    reference = curves[f"{name[:4]} torch 4096 packed on 1"]
    return {
        "gradient": gradient_deviation(curve, reference),
        "norms": largest(curve["norms"], reference["norms"]),
        "losses": largest(curve["losses"], reference["losses"]),
        "change": change_deviation(curve, reference),
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_budget_gives_the_curve_of_plain_torch_on_one_rank(curves, name):
    found = deviations(curves, name, curves[name])
    assert len(curves[name]["losses"]) == STEPS
    if name.startswith("bf16"):
        assert max(found["norms"], found["losses"]) < 1e-2
    else:
        assert found["gradient"] < 1e-5
        assert max(found["norms"], found["losses"]) < 1e-4
        assert found["change"] < 1e-3

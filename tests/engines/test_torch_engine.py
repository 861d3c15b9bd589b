"""Of `engines/torch_engine.py`, what the tests of all engines together do not reach."""

import torch

from sft_dist.engines import torch_engine
from sft_dist.engines.torch_engine import add_low_precision


def test_a_low_precision_gradient_is_added_row_by_row_to_a_float32_sum(monkeypatch):
    monkeypatch.setattr(torch_engine, "ROWS_ADDED", 4)
    generator = torch.Generator().manual_seed(1)
    for shape in ((10, 3), (9,), (3, 2)):  # more rows than at once, a bias, fewer
        total = torch.randn(shape, generator=generator)
        more = torch.randn(shape, generator=generator).bfloat16()
        expected = total + more.float()
        add_low_precision(total, more)
        assert torch.equal(total, expected)

"""Which type is computed in, by what a CPU can."""

import pytest
import torch

from sft_dist.cpu_precision import emulates_bfloat16, faster_dtype

PLAIN = {"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}


@pytest.fixture
def cpu(monkeypatch):
    def pretend(*, cuda=False, **capabilities):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: PLAIN | capabilities)

    return pretend


@pytest.mark.parametrize(
    ("machine", "slow"),
    [
        ({}, True),
        ({"avx512_bf16": True}, False),
        ({"amx_bf16": True}, False),
        ({"architecture": "aarch64"}, False),
        ({"cuda": True}, False),
    ],
)
def test_bfloat16_is_slow_where_an_x86_cpu_has_no_instructions_for_it(cpu, machine, slow):
    cpu(**machine)
    assert emulates_bfloat16() == slow
    assert faster_dtype("bfloat16") == ("float32" if slow else "bfloat16")
    assert faster_dtype("float32") == "float32"
    assert faster_dtype("float16") == "float16"


def test_this_cpu_is_known_by_the_names_that_torch_gives():
    # A name that torch changes would make every CPU slow.
    assert {"architecture", "avx512_bf16", "amx_bf16"} <= torch.cpu.get_capabilities().keys() or (
        torch.cpu.get_capabilities()["architecture"] != "x86_64"
    )

"""What FSDP does besides the curve; in this process, on one rank."""

import pytest
import torch

from sft_dist.config import OptimizerConfig
from sft_dist.data.packing import pack
from sft_dist.engines import fsdp_engine
from sft_dist.engines.fsdp_engine import FsdpEngine, fits_whole
from sft_dist.engines.torch_engine import TorchEngine
from sft_dist.optimizer_state import save_optimizer_state
from sft_dist.runtime.distributed import distributed
from tests.tiny import tiny_examples, tiny_model

pytestmark = pytest.mark.slow
CONFIG = OptimizerConfig(learning_rate=1e-3)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def group(monkeypatch, unused_tcp_port_of_this_host):
    settings = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}
    settings |= {"MASTER_PORT": unused_tcp_port_of_this_host, "DS_ACCELERATOR": "cpu"}
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    with distributed():
        yield


@pytest.fixture
def unused_tcp_port_of_this_host():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def batch(first):
    return pack(tiny_examples()[first : first + 3])


def trained(engine, steps=2):
    for step in range(steps):
        engine.train_step([batch(step), batch(step + 3)], 100, 1e-3)
    return engine


def fsdp(dtype=torch.bfloat16, **settings):
    settings = {"device": CPU, "whole_in_step": True, **settings}
    return FsdpEngine(tiny_model(dtype=dtype), CONFIG, **settings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("whole_in_step", [True, False])
def test_the_weights_that_are_saved_are_the_masters_rounded(dtype, whole_in_step):
    engine = trained(fsdp(dtype, whole_in_step=whole_in_step))
    masters = {n: shard.master for n, shard in engine.optimizer_state().shards.items()}
    weights = dict(engine.weights())
    assert weights.keys() == dict(tiny_model().named_parameters()).keys() == masters.keys()
    for name, weight in weights.items():
        assert masters[name].dtype == torch.float32
        assert weight.dtype == dtype
        assert torch.equal(weight.flatten(), masters[name].to(dtype))


def test_log_probs_are_those_of_the_present_weights():
    """A forward pass without a backward one leaves weights gathered; an update must not miss it."""
    engine, plain = fsdp(), TorchEngine(tiny_model(dtype=torch.bfloat16), CONFIG, device=CPU)
    for _ in range(2):
        assert torch.equal(engine.log_probs(batch(0)), plain.log_probs(batch(0)))
        trained(engine), trained(plain)
    assert torch.equal(engine.log_probs(batch(0)), plain.log_probs(batch(0)))


def test_loading_a_state_changes_the_weights_of_the_next_forward_pass(tmp_path):
    engine = trained(fsdp())
    save_optimizer_state(tmp_path, engine.optimizer_state())
    fresh = fsdp()
    assert not torch.equal(fresh.log_probs(batch(0)), engine.log_probs(batch(0)))
    fresh.load_state(tmp_path)
    assert torch.equal(fresh.log_probs(batch(0)), engine.log_probs(batch(0)))


@pytest.mark.parametrize(("dtype", "bytes_each"), [("bfloat16", 6), ("float32", 8)])
def test_weights_and_gradients_are_whole_where_they_take_a_quarter_of_the_memory(
    monkeypatch, dtype, bytes_each
):
    model = tiny_model(dtype=getattr(torch, dtype))
    needed = bytes_each * sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(fsdp_engine, "_memory", lambda device: 4 * needed)
    assert fits_whole(model, CPU)
    monkeypatch.setattr(fsdp_engine, "_memory", lambda device: 4 * needed - 1)
    assert not fits_whole(model, CPU)

"""PyTorch's FSDP2 (torch 2.13; what it does was read there): all state sharded by rows.

Weights, gradients and optimizer state live as float32 shards; a layer's weights are gathered, in
the type of the computation, when it needs them. The shards are the masters, so there is no second
copy of the weights, and gathering rounds them as the other engines round theirs.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from sft_dist.config import OptimizerConfig
from sft_dist.data.packing import MicroBatch
from sft_dist.engines.protocol import StepResult
from sft_dist.engines.torch_engine import adam_state, adamw, clipped_step
from sft_dist.engines.totals import StepTotals
from sft_dist.model import TokenScorer
from sft_dist.normalization import engine_loss_scale
from sft_dist.optimizer_state import (
    MOMENTS,
    OptimizerState,
    ParameterShard,
    load_optimizer_state,
)

WHOLE_SHARE = 0.25
"""Of a device's memory, what weights and gradients may take that are whole during a step."""


class FsdpEngine:
    """A model sharded layer by layer: float32 masters, gradients and reduction."""

    def __init__(
        self,
        causal_lm: nn.Module,
        config: OptimizerConfig,
        *,
        device: torch.device,
        whole_in_step: bool,
    ) -> None:
        """Every argument but `whole_in_step` (see `fits_whole`) is as for `TorchEngine`.

        With `whole_in_step` weights are gathered and gradients reduced once a step, as in ZeRO-2;
        without, twice and once a micro-batch, as in ZeRO-3, and no rank holds more than one layer
        and the embedding whole. Gradients are summed in float32 either way.
        """
        self.dtype = next(causal_lm.parameters()).dtype
        self.device = device
        self.max_grad_norm = config.max_grad_norm
        self.whole_in_step = whole_in_step
        self.module = TokenScorer(causal_lm)
        self._sharded = _shard(self.module, device=device, whole_in_step=whole_in_step)
        self.parameters = {
            name.removeprefix("causal_lm."): cast(DTensor, parameter)
            for name, parameter in self.module.named_parameters()
        }
        self.masters = {name: _local(parameter) for name, parameter in self.parameters.items()}
        self.optimizer = adamw(list(self.masters.values()), config)

    def train_step(
        self,
        micro_batches: Sequence[MicroBatch],
        normalizer: float,
        learning_rate: float,
    ) -> StepResult:
        """See `Engine.train_step`."""
        scale = engine_loss_scale(normalizer=normalizer)  # FSDP is told to sum, see `_shard`
        last = len(micro_batches) - 1
        with StepTotals(self.device, len(micro_batches)) as totals:
            for index, batch in enumerate(micro_batches):
                self._prepare_backward(is_last=index == last)
                (totals.add(self.module(totals.begin(batch))) * scale).backward()
            sums = totals.reduce()
            norm = self._take_gradients()
            applied = math.isfinite(norm)
            if applied:
                clipped_step(
                    self.optimizer,
                    norm,
                    max_grad_norm=self.max_grad_norm,
                    learning_rate=learning_rate,
                )
        self._zero_grad()
        return StepResult(**sums, grad_norm_preclip=norm, applied=applied)

    def log_probs(self, micro_batch: MicroBatch) -> Tensor:
        """See `Engine.log_probs`."""
        with torch.no_grad():
            found = self.module(micro_batch.to(self.device)).log_probs
        for part in self._sharded:
            part.reshard()  # no backward pass does it, and whole weights would outlive an update
        return found

    @property
    def causal_lm(self) -> nn.Module:
        """See `Engine.causal_lm`."""
        return self.module.causal_lm

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        """See `Engine.weights`."""
        is_zero = dist.get_rank() == 0
        for name, parameter in self.parameters.items():
            whole = parameter.detach().to(self.dtype).full_tensor()  # one at a time on a device
            yield name, whole if is_zero else None

    def optimizer_state(self) -> OptimizerState:
        """See `Engine.optimizer_state`."""
        steps = {int(self._state(name)["step"]) for name in self.masters}
        (adam_step,) = steps
        return OptimizerState(dict(self._shards()), adam_step)

    def load_state(self, directory: Path) -> None:
        """See `Engine.load_state`."""
        adam_step = load_optimizer_state(directory, dict(self._shards()))
        for name in self.masters:
            self._state(name)["step"].fill_(adam_step)

    def _prepare_backward(self, *, is_last: bool) -> None:
        root = self._sharded[-1]
        root.set_is_last_backward(is_last)
        if self.whole_in_step:
            # FSDP then adds up unsharded gradients, in the type of the reduction.
            root.set_requires_gradient_sync(is_last)
            root.set_reshard_after_backward(is_last)

    @torch.no_grad()
    def _take_gradients(self) -> float:
        """Give every master its reduced gradient; the norm over all ranks. Collective."""
        for name, parameter in self.parameters.items():
            self.masters[name].grad = None if parameter.grad is None else _local(parameter.grad)
        gradients = [m.grad for m in self.masters.values() if m.grad is not None]
        square = torch.nn.utils.get_total_norm(gradients).double() ** 2
        dist.all_reduce(square)
        return float(square.sqrt())

    def _zero_grad(self) -> None:
        for tensor in (*self.parameters.values(), *self.masters.values()):
            tensor.grad = None

    def _state(self, name: str) -> dict[str, Tensor]:
        return adam_state(self.optimizer, self.masters[name])

    def _shards(self) -> Iterator[tuple[str, ParameterShard]]:
        """This rank's rows of every parameter it has rows of."""
        for name, parameter in self.parameters.items():
            master, state = self.masters[name], self._state(name)
            if master.numel() > 0:
                moments = {kind: state[kind].view(-1) for kind in MOMENTS}
                offset = _first_row(parameter) * (parameter.numel() // parameter.shape[0])
                yield name, ParameterShard(offset, parameter.numel(), master.view(-1), moments)


def fits_whole(causal_lm: nn.Module, device: torch.device) -> bool:
    """Whether a step may hold the whole weights and float32 gradients on every rank. Collective.

    Worth the memory where there is enough, 9 GB for 1.5 B parameters in bf16: with 8 micro-batches
    a step a tenth of the bytes pass between ranks (2 CPU ranks: 0.4 to 0.7 of the step's time).
    Between steps everything is sharded anyway.
    """
    needed = sum(p.numel() * (p.element_size() + 4) for p in causal_lm.parameters())
    verdict = torch.tensor(int(needed <= WHOLE_SHARE * _memory(device)), device=device)
    dist.all_reduce(verdict, op=dist.ReduceOp.MIN)  # collectives must match on all ranks
    return bool(verdict)


def _memory(device: torch.device) -> float:
    """Bytes that this rank may call its own."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return host / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _shard(module: TokenScorer, *, device: torch.device, whole_in_step: bool) -> list[FSDPModule]:
    """Shard each layer, then the rest: embedding, last norm and head, which ends the list.

    The rest stays whole from its forward to its backward pass, where it is wanted first and last.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=next(module.parameters()).dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # token weights are float32, and stay it
    )
    parts = [*module.causal_lm.base_model.layers, module]
    for part in parts:
        for parameter in part.parameters():
            if not isinstance(parameter, DTensor):  # those of the layers are sharded by then
                # Not part.float(): the rotary frequencies are no parameters.
                parameter.data = parameter.data.to(device, torch.float32)
        reshard = part is not module and not whole_in_step
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
        # Gradients are summed over the ranks: an average's factor would be rounded in bf16.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)
    return parts


def _local(tensor: DTensor) -> Tensor:
    """This rank's rows, in the very memory of `tensor`; empty when there are fewer rows."""
    with torch.no_grad():
        return tensor.to_local()


def _first_row(parameter: DTensor) -> int:
    """Where this rank's rows begin; they are cut as by `torch.chunk`."""
    rows = -(-parameter.shape[0] // dist.get_world_size())
    return min(rows * dist.get_rank(), parameter.shape[0])

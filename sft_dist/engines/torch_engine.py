"""Plain PyTorch: everything on every rank. The reference that the sharded engines must equal."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sft_dist.config import OptimizerConfig
from sft_dist.data.packing import MicroBatch
from sft_dist.engines.protocol import StepResult
from sft_dist.engines.totals import StepTotals
from sft_dist.model import TokenScorer
from sft_dist.normalization import engine_loss_scale
from sft_dist.optimizer_state import (
    MOMENTS,
    OptimizerState,
    ParameterShard,
    load_optimizer_state,
)

ROWS_ADDED = 4096
"""Of a gradient at a time: the copy of a whole embedding would be half a gigabyte."""


def adamw(parameters: Sequence[Tensor], config: OptimizerConfig) -> torch.optim.AdamW:
    """The optimizer of every engine: fused AdamW, one parameter group."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


class TorchEngine:
    """Data parallel over the ranks there are, with float32 masters, gradients and reduction."""

    def __init__(
        self,
        causal_lm: nn.Module,
        config: OptimizerConfig,
        *,
        device: torch.device,
    ) -> None:
        self.module = TokenScorer(causal_lm).to(device)
        self.device = device
        self.max_grad_norm = config.max_grad_norm
        self.parameters = {
            name.removeprefix("causal_lm."): parameter
            for name, parameter in self.module.named_parameters()
        }
        self.masters = [self._master(p) for p in self.parameters.values()]
        self.optimizer = adamw(self.masters, config)

    def train_step(
        self,
        micro_batches: Sequence[MicroBatch],
        normalizer: float,
        learning_rate: float,
    ) -> StepResult:
        """See `Engine.train_step`."""
        scale = engine_loss_scale(normalizer=normalizer)
        with StepTotals(self.device, len(micro_batches)) as totals:
            for batch in micro_batches:
                (totals.add(self.module(totals.begin(batch))) * scale).backward()
            sums = totals.reduce()
            norm = self._reduced_grad_norm()
            applied = math.isfinite(norm)
            if applied:
                self._update(norm, learning_rate)
        self._zero_grad()
        return StepResult(**sums, grad_norm_preclip=norm, applied=applied)

    def log_probs(self, micro_batch: MicroBatch) -> Tensor:
        """See `Engine.log_probs`."""
        with torch.no_grad():
            return self.module(micro_batch.to(self.device)).log_probs

    @property
    def causal_lm(self) -> nn.Module:
        """See `Engine.causal_lm`."""
        return self.module.causal_lm

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        """See `Engine.weights`."""
        is_zero = not dist.is_initialized() or dist.get_rank() == 0
        for name, parameter in self.parameters.items():
            yield name, parameter.detach() if is_zero else None

    def optimizer_state(self) -> OptimizerState:
        """See `Engine.optimizer_state`."""
        steps = int(self._state(0)["step"])
        return OptimizerState(fair_share(dict(self._shards())), steps)

    def load_state(self, directory: Path) -> None:
        """See `Engine.load_state`."""
        steps = load_optimizer_state(directory, dict(self._shards()))
        for index in range(len(self.masters)):
            self._state(index)["step"].fill_(steps)

    @staticmethod
    def _master(parameter: Tensor) -> Tensor:
        """The float32 tensor AdamW steps, with its gradient; a float32 parameter is its own."""
        if parameter.dtype == torch.float32:
            return parameter
        master = parameter.detach().float()

        def accumulate(low: Tensor) -> None:
            # At once, so that low-precision gradients never stand there for the whole model.
            assert low.grad is not None
            if master.grad is None:
                master.grad = low.grad.float()
            else:
                add_low_precision(master.grad, low.grad)
            low.grad = None

        parameter.register_post_accumulate_grad_hook(accumulate)
        return master

    def _zero_grad(self) -> None:
        for master in self.masters:
            master.grad = None

    @torch.no_grad()
    def _reduced_grad_norm(self) -> float:
        gradients = [m.grad for m in self.masters if m.grad is not None]
        if dist.is_initialized() and dist.get_world_size() > 1:
            for gradient in gradients:
                dist.all_reduce(gradient)
        return float(torch.nn.utils.get_total_norm(gradients))

    @torch.no_grad()
    def _update(self, norm: float, learning_rate: float) -> None:
        clipped_step(
            self.optimizer, norm, max_grad_norm=self.max_grad_norm, learning_rate=learning_rate
        )
        for master, parameter in zip(self.masters, self.parameters.values(), strict=True):
            if parameter is not master:
                parameter.copy_(master)

    def _state(self, index: int) -> dict[str, Tensor]:
        """AdamW's state of a master, made before the first step when it must be saved or read."""
        return adam_state(self.optimizer, self.masters[index])

    def _shards(self) -> Iterator[tuple[str, ParameterShard]]:
        for index, name in enumerate(self.parameters):
            master, state = self.masters[index], self._state(index)
            moments = {kind: state[kind].view(-1) for kind in MOMENTS}
            yield name, ParameterShard(0, master.numel(), master.detach().view(-1), moments)


def add_low_precision(total: Tensor, summand: Tensor) -> None:
    """Add to a float32 sum, some rows at a time: a CPU makes a float32 copy of what it adds."""
    for rows, more in zip(total.split(ROWS_ADDED), summand.split(ROWS_ADDED), strict=True):
        rows += more


def clipped_step(
    optimizer: torch.optim.Optimizer, norm: float, *, max_grad_norm: float, learning_rate: float
) -> None:
    """Step the one parameter group, its gradients scaled down to `max_grad_norm` (0: never).

    Args:
        optimizer: see `adamw`.
        norm: of the gradients over all ranks; torch's own clipping would divide by norm + 1e-6.
        max_grad_norm: the most that the norm may be.
        learning_rate: of this step.
    """
    (group,) = optimizer.param_groups
    if 0 < max_grad_norm < norm:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad *= max_grad_norm / norm
    group["lr"] = learning_rate
    optimizer.step()


def adam_state(optimizer: torch.optim.Optimizer, master: Tensor) -> dict[str, Tensor]:
    """AdamW's state of one master tensor; zeros, as AdamW would make them, when there is none."""
    state = optimizer.state[master]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=master.device)
        for kind in MOMENTS:
            state[kind] = torch.zeros_like(master)
    return state


def fair_share(shards: Mapping[str, ParameterShard]) -> dict[str, ParameterShard]:
    """Of a state that every rank holds, what this one saves."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return {name: shards[name] for name in list(shards)[rank::size]}

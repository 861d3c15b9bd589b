"""DeepSpeed ZeRO-0 ... 3. The only importer of deepspeed (0.19.8; what it does was read there)."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sft_dist.config import OptimizerConfig
from sft_dist.data.packing import MicroBatch
from sft_dist.engines.ds_config import complete_ds_config
from sft_dist.engines.protocol import StepResult
from sft_dist.engines.torch_engine import adam_state, adamw, fair_share
from sft_dist.engines.totals import StepTotals
from sft_dist.model import TokenScorer
from sft_dist.normalization import engine_loss_scale
from sft_dist.optimizer_state import (
    MOMENTS,
    OptimizerState,
    ParameterShard,
    load_optimizer_state,
)


class DeepSpeedEngine:
    """A ZeRO-sharded model: bf16 or float32 weights, float32 masters, accumulation, reduction."""

    def __init__(
        self,
        causal_lm: nn.Module,
        config: OptimizerConfig,
        *,
        ds_settings: dict[str, Any],
        dtype: str,
        device: torch.device,
    ) -> None:
        """Every argument but `ds_settings` (the JSON file) is as for `TorchEngine`."""
        deepspeed = import_deepspeed()
        module = TokenScorer(causal_lm)
        self.device = device
        self.stage = ds_settings.get("zero_optimization", {}).get("stage", 0)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=adamw(list(module.parameters()), config),
            config=complete_ds_config(
                ds_settings,
                dtype=dtype,
                max_grad_norm=config.max_grad_norm,
                world_size=dist.get_world_size(),
            ),
            dist_init_required=False,
        )
        self.parameters = {
            name.removeprefix("causal_lm."): parameter
            for name, parameter in self.engine.module.named_parameters()
        }
        self._gathered = deepspeed.zero.GatheredParameters
        for state in self._adam_states():
            state["step"].zero_()  # stage 0 has allocated its state by a step without gradients

    def train_step(
        self,
        micro_batches: Sequence[MicroBatch],
        normalizer: float,
        learning_rate: float,
    ) -> StepResult:
        """See `Engine.train_step`."""
        # DeepSpeed averages gradients over the ranks, and divides by nothing else here.
        scale = engine_loss_scale(normalizer=normalizer, averaged_over=dist.get_world_size())
        last = len(micro_batches) - 1
        with StepTotals(self.device, len(micro_batches)) as totals:
            for index, batch in enumerate(micro_batches):
                self.engine.set_gradient_accumulation_boundary(index == last)
                loss = totals.add(self.engine(totals.begin(batch)))
                self.engine.backward(loss * scale, scale_wrt_gas=False)
                if index < last:
                    self.engine.step()  # counts the micro-step; nothing is updated
            sums = totals.reduce()
            norm, applied = self._update(learning_rate)
        return StepResult(**sums, grad_norm_preclip=norm, applied=applied)

    def log_probs(self, micro_batch: MicroBatch) -> Tensor:
        """See `Engine.log_probs`."""
        with torch.no_grad():
            return self.engine(micro_batch.to(self.device)).log_probs

    @property
    def causal_lm(self) -> nn.Module:
        """See `Engine.causal_lm`."""
        return self.engine.module.causal_lm

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        """See `Engine.weights`."""
        is_zero = dist.get_rank() == 0
        for name, parameter in self.parameters.items():
            gathering = self._gathered([parameter]) if self.stage == 3 else nullcontext()
            with gathering:
                yield name, parameter.detach() if is_zero else None

    def optimizer_state(self) -> OptimizerState:
        """See `Engine.optimizer_state`."""
        steps = {int(state["step"]) for state in self._adam_states()}
        (adam_step,) = steps or {0}
        shards = dict(self._shards())
        return OptimizerState(fair_share(shards) if self.stage == 0 else shards, adam_step)

    def load_state(self, directory: Path) -> None:
        """See `Engine.load_state`."""
        adam_step = load_optimizer_state(directory, dict(self._shards()))
        for state in self._adam_states():
            state["step"].fill_(adam_step)

    def _update(self, learning_rate: float) -> tuple[float, bool]:
        """The gradient norm before clipping, and whether the update was made."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self._unsharded_grad_norm() if self.stage == 0 else None
        if norm is not None and not math.isfinite(norm):
            self.engine.zero_grad()
            return norm, False
        self.engine.step()
        if norm is None:
            norm = float(self.engine.get_global_grad_norm())
        applied = self.engine.was_step_applied() and math.isfinite(norm)
        if not applied:
            self._drop_gradients()
        return norm, applied

    def _drop_gradients(self) -> None:
        """With its optimizer offloaded, ZeRO-1 and -2 add to what is left of a step left out."""
        if self.stage in (1, 2):
            left = getattr(self.optimizer, "averaged_gradients", {})
            for group in left:
                left[group] = None

    def _unsharded_grad_norm(self) -> float:
        """Stage 0 reduces the gradients in place, clips them, and tells no norm."""
        gradients = [p.grad.float() for p in self.parameters.values() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _adam_states(self) -> Iterator[dict[str, Tensor]]:
        for master in _masters(self.optimizer, self.parameters.values()):
            yield adam_state(_basic_optimizer(self.optimizer), master)

    def _shards(self) -> Iterator[tuple[str, ParameterShard]]:
        """This rank's part of every parameter it owns a part of."""
        for name, parameter in self.parameters.items():
            located = _locate(self.optimizer, parameter)
            if located is None:
                continue
            flat_master, start, offset, count, numel = located
            state = adam_state(_basic_optimizer(self.optimizer), flat_master)
            moments = {k: state[k].view(-1).narrow(0, start, count) for k in MOMENTS}
            master = flat_master.detach().view(-1).narrow(0, start, count)
            yield name, ParameterShard(offset, numel, master, moments)


def import_deepspeed() -> Any:
    """deepspeed, kept from compiling anything: no compiler is needed on a CPU.

    `init_distributed` would build its shared-memory operator, which only `inference_all_reduce`
    uses, and fail where there is no ninja or compiler (comm/torch.py, build_shm_op).
    """
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    _import_muon_uncompiled()
    return deepspeed


def _import_muon_uncompiled() -> None:
    """ZeRO imports the Muon optimizer, whose decorator loads torch's whole compiler: a second.

    Nobody can choose Muon here.
    """
    from deepspeed.runtime import compiler

    compile_kernel = compiler.compile
    compiler.compile = lambda *args, **kwargs: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        compiler.compile = compile_kernel


def _basic_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The AdamW inside DeepSpeed's wrapper; stage 0 in float32 has no wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


MASTERS = (
    "single_partition_of_fp32_groups",  # stages 1 and 2
    "fp32_groups_flat_partition",  # BF16_Optimizer, which serves stage 1 in bf16
    "fp32_partitioned_groups_flat",  # stage 3
)


def _masters(optimizer: Any, parameters: Iterable[Tensor]) -> list[Tensor]:
    """The float32 tensors that AdamW steps on this rank, in the order of their groups."""
    for attribute in MASTERS:
        if hasattr(optimizer, attribute):
            return list(getattr(optimizer, attribute))
    # Stage 0: a master for each bf16 parameter; a float32 parameter is its own.
    groups = getattr(optimizer, "fp32_groups", None)
    return list(parameters) if groups is None else [m for group in groups for m in group]


def _locate(optimizer: Any, parameter: Tensor) -> tuple[Tensor, int, int, int, int] | None:
    """Where this rank keeps its part of a parameter's float32 master.

    Returns:
        (flat master, where the part starts in it, where it starts in the flattened parameter,
        elements in the part, elements of the parameter); None when this rank has no part.
    """
    if hasattr(parameter, "ds_id"):  # stage 3: each parameter is cut evenly, padded at the end
        group, start, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
        flat = optimizer.fp32_partitioned_groups_flat[group]
        part = parameter.partition_numel()
        offset = part * dist.get_rank()
        count = min(part, parameter.ds_numel - offset)
        return (flat, start, offset, count, parameter.ds_numel) if count > 0 else None
    if hasattr(parameter, "_hp_mapping"):  # stages 1 and 2: the flattened model is cut evenly
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        there, here = mapping.hp_fragment_address, mapping.lp_fragment_address
        flat = _masters(optimizer, ())[mapping.param_group_index]
        return flat, there.start, here.start, here.numel, parameter.numel()
    master = _whole_master(optimizer, parameter)
    return master, 0, 0, parameter.numel(), parameter.numel()


def _whole_master(optimizer: Any, parameter: Tensor) -> Tensor:
    """Stage 0: the master of one parameter (FP16_UnfusedOptimizer keeps them in like order)."""
    low = [p for group in getattr(optimizer, "fp16_groups", []) for p in group]
    pairs = zip(low, _masters(optimizer, low), strict=True) if low else ()
    return next((master for p, master in pairs if p is parameter), parameter)

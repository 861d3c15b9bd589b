"""What runs inside vLLM's processes: methods of its worker, and the logits processor of entropies.

vLLM takes both by name, from this module. Written against vLLM 0.32.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from sft_dist.evaluation.entropy_log import EntropyLog
from sft_dist.evaluation.weight_proof import WeightsOnDisk, mismatches

ROW_KEY = "sft_dist_row"
"""Of a request's `extra_args`: its place among the evaluation's answers."""

ENTROPIES = EntropyLog()
"""Of the engine in this process: vLLM makes the logits processor, and takes only its name."""


class ReloadExtension:
    """Methods that vLLM mixes into its worker; `collective_rpc` calls them."""

    rank: int
    model_runner: Any
    reload_weights: Any

    def sft_reload(self, model_dir: str) -> None:
        """Load other weights in place, and repair what vLLM 0.32 leaves stale.

        On CPU the head is packed into a closure when the model is built. A tied head "loads
        nothing" on reload, so the closure keeps the old matrix although every tensor is new.
        """
        from vllm.platforms import current_platform

        self.reload_weights(weights_path=model_dir)
        if current_platform.is_cpu():
            from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

            dispatch_cpu_unquantized_gemm(
                self.model_runner.get_model().lm_head, remove_weight=False
            )

    def sft_mismatches(self, model_dir: str) -> list[str]:
        """Where this process's part of the model differs from the files."""
        weights = WeightsOnDisk(Path(model_dir))
        return mismatches(self.model_runner.get_model(), weights, sees_logits=self.rank == 0)

    def sft_clear_entropies(self) -> None:
        """Forget the entropies of the requests before."""
        ENTROPIES.clear()

    def sft_mean_entropies(self, num_tokens: list[int]) -> list[float | None]:
        """Mean entropy of each request, of so many tokens."""
        return ENTROPIES.means(num_tokens) if self.rank == 0 else []


def __getattr__(name: str) -> Any:
    """`EntropyRecorder`, by which vLLM's processes find it; made when vLLM is there."""
    if name == "EntropyRecorder":
        return _entropy_processor(ENTROPIES)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _entropy_processor(log: EntropyLog) -> type:
    """A vLLM logits processor that changes nothing and notes the entropies of what passes.

    It sees the raw logits in float32, before temperature and truncation.
    """
    from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

    class EntropyRecorder(LogitsProcessor):
        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
            self._requests: dict[int, tuple[int, list[int]]] = {}  # batch index -> row, tokens

        def is_argmax_invariant(self) -> bool:
            return False  # vLLM skips invariant processors when decoding greedily

        def update_state(self, batch_update: Any) -> None:
            process_dict_updates(
                self._requests,
                batch_update,
                lambda params, _prompt, tokens: (params.extra_args[ROW_KEY], tokens),
            )

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            indices = sorted(self._requests)
            # The list of tokens is the engine's own, so its length is the position now sampled.
            entries = [self._requests[index] for index in indices]
            places = [(row, len(tokens)) for row, tokens in entries]
            log.append(places, logits[indices] if len(indices) < len(logits) else logits)
            return logits

    return EntropyRecorder

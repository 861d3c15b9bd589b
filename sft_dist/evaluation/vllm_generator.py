"""Decoding with vLLM: one engine in this process for the whole run.

With `vllm_extension.py` the only importer of vllm. Written against vLLM 0.32. On GPU everything
here is untested: the V1 model runner is forced there (`VLLM_USE_V2_MODEL_RUNNER=0`), because the
newer one has another interface for logits processors.
"""

import gc
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.decoding import TokenizerLoader, draw_seed, response_text
from sft_dist.evaluation.engine_options import EngineOptions, architecture, prepare_environment
from sft_dist.evaluation.generator import (
    VLLM_NOT_INSTALLED,
    Completion,
    Draw,
    Progress,
    draws,
    prompt_overflow,
)
from sft_dist.evaluation.request import Problem, Sampling
from sft_dist.evaluation.vllm_extension import ROW_KEY, ReloadExtension
from sft_dist.evaluation.weight_proof import WeightsOnDisk
from sft_dist.garbage import collections_put_off, collector_paused

logger = logging.getLogger(__name__)


class VllmGenerator:
    """A vLLM engine whose weights are changed in place, with proof after every change."""

    def __init__(self, options: EngineOptions | None = None) -> None:
        self._options = options or EngineOptions()
        self._llm: Any = None
        self._config: dict[str, Any] = {}
        self._model_dir = Path()
        self._tokenizer: Any = None
        self._tokenizers = TokenizerLoader()

    def load(self, model_dir: Path) -> dict[str, Any]:
        """Build the engine, or reload it in place; either way prove what it computes with.

        Raises EvaluationError when the proof fails. The engine is gone then: the next `load`,
        which is the request's next attempt, builds a new one.
        """
        started = time.monotonic()
        # Validated first: a reload that fails half way would take the engine with it.
        config = architecture(model_dir)
        WeightsOnDisk(model_dir)
        self._tokenizer = self._tokenizers.load(model_dir)
        how = "in place"
        if not self._can_reload(config) or not self._reloaded(model_dir):
            how = "new engine"
            self._build(model_dir, config)
        self._prove(model_dir)
        self._model_dir = model_dir
        seconds = round(time.monotonic() - started, 3)
        facts = {"backend": "vllm", "loaded": how, "weights_proved": True, "load_seconds": seconds}
        facts["dtype"] = self._options.resolved_dtype(config)
        fault = self._options.reload_fault
        return facts | ({"reload_fault": fault} if fault else {})

    def generate(
        self, problems: Sequence[Problem], sampling: Sampling, on_progress: Progress
    ) -> list[Completion]:
        """Decode all problems at once; vLLM schedules them."""
        if self._llm is None:
            raise EvaluationError("expected weights to be loaded before generating")
        limit = self._make_room(problems, sampling)
        wanted = draws(problems, sampling)
        long = [draw for draw in wanted if len(draw.problem.prompt_token_ids) >= limit]
        done = {draw.key: prompt_overflow(draw) for draw in long}
        waiting = [draw for draw in wanted if draw.key not in done]
        self._llm.collective_rpc("sft_clear_entropies")
        try:
            outputs = self._run(waiting, sampling, limit, on_progress)
        except BaseException:
            self.close()  # what is under way would turn up in the next evaluation
            raise
        lengths = [len(output.token_ids) for output in outputs]
        entropies = self._llm.collective_rpc("sft_mean_entropies", args=(lengths,))[0]
        for draw, output, entropy in zip(waiting, outputs, entropies, strict=True):
            done[draw.key] = Completion(
                id=draw.problem.id,
                response=response_text(self._tokenizer, output.token_ids, sampling),
                num_tokens=len(output.token_ids),
                finish_reason=str(output.finish_reason),
                mean_token_entropy=entropy,
                sample=draw.sample,
            )
        return [done[draw.key] for draw in wanted]

    def close(self) -> None:
        """End the engine and free the device."""
        if self._llm is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.model_executor.model_loader.reload.layerwise import LAYERWISE_INFO

        with collections_put_off():
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        LAYERWISE_INFO.clear()  # its values hold its weak keys, the layers, and so the weights
        cleanup_dist_env_and_memory()  # collects garbage, then empties the device's cache
        if sys.exc_info()[0] is None:  # else a traceback may hold the engine, which must go later
            gc.freeze()  # the imports, which the next engine's start would go through

    def _build(self, model_dir: Path, config: dict[str, Any]) -> None:
        self.close()
        vllm = _import_vllm()
        # vLLM collects nine times on the way: 1.5 s with all that imports have made. Its shutdown
        # undoes this.
        gc.collect()
        gc.freeze()
        options = self._options
        try:
            self._llm = vllm.LLM(
                model=str(model_dir),
                skip_tokenizer_init=True,  # token ids in and out: `decoding` turns them into text
                generation_config="vllm",  # the model's own sampling defaults must not leak in
                dtype=options.resolved_dtype(config),
                max_model_len=options.model_len(config),
                gpu_memory_utilization=options.gpu_memory_utilization,
                kv_cache_memory_bytes=_cache_bytes(options, config),
                enforce_eager=options.enforce_eager,
                enable_prefix_caching=False,  # one more thing a reload could leave stale
                worker_extension_cls=f"{ReloadExtension.__module__}.{ReloadExtension.__name__}",
                logits_processors=[f"{ReloadExtension.__module__}:EntropyRecorder"],
                tensor_parallel_size=options.tensor_parallel,
                seed=0,
            )
        # vLLM lets whatever went wrong inside through: any exception means "no engine".
        except Exception as error:
            raise EvaluationError(f"vLLM cannot start on {model_dir}: {error!r}") from error
        self._config = config

    def _make_room(self, problems: Sequence[Problem], sampling: Sampling) -> int:
        """Tokens of prompt and completion that fit; a larger engine is built where one can be."""
        longest = max((len(p.prompt_token_ids) for p in problems), default=0)
        needed = longest + sampling.max_new_tokens
        limit = self._options.model_len(self._config)
        if needed > limit:
            self._options = replace(self._options, max_model_len=needed)
            if self._options.model_len(self._config) > limit:
                logger.info("building an engine for %d tokens, had %d", needed, limit)
                self._build(self._model_dir, self._config)
                self._prove(self._model_dir)
        return self._options.model_len(self._config)

    def _can_reload(self, config: dict[str, Any]) -> bool:
        wanted, built = map(self._options.engine_config, (config, self._config))
        return self._llm is not None and wanted == built and self._options.reload_fault is None

    def _reloaded(self, model_dir: Path) -> bool:
        """Change the weights in place; False when the engine cannot."""
        try:
            self._llm.collective_rpc("sft_reload", args=(str(model_dir),))
            self._llm.reset_prefix_cache()
        # As in `_build`; a new engine follows, so nothing is hidden by going on.
        except Exception:
            logger.exception("reloading %s in place failed, building a new engine", model_dir)
            return False
        return True

    def _prove(self, model_dir: Path) -> None:
        found = self._llm.collective_rpc("sft_mismatches", args=(str(model_dir),))
        wrong = sorted({name for part in found for name in part})
        if wrong:
            self.close()
            raise EvaluationError(
                f"the engine does not compute with the weights in {model_dir}: "
                f"{len(wrong)} tensors differ, {', '.join(wrong[:5])}; nothing was scored"
            )

    def _run(
        self, waiting: Sequence[Draw], sampling: Sampling, limit: int, on_progress: Progress
    ) -> list[Any]:
        """Step the engine until all is decoded; the outputs keep the order of `waiting`."""
        engine = self._llm.llm_engine
        self._llm.enqueue(
            [{"prompt_token_ids": draw.problem.prompt_token_ids} for draw in waiting],
            [_sampling_params(row, draw, sampling, limit) for row, draw in enumerate(waiting)],
            use_tqdm=False,
        )
        finished: list[Any] = []
        while engine.has_unfinished_requests():
            finished += [output for output in engine.step() if output.finished]
            on_progress(len(finished))
        finished.sort(key=lambda output: int(output.request_id))  # numbered as they were enqueued
        return [output.outputs[0] for output in finished]


def _sampling_params(row: int, draw: Draw, sampling: Sampling, limit: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        max_tokens=min(sampling.max_new_tokens, limit - len(draw.problem.prompt_token_ids)),
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=True,  # stop where the request says, nowhere else
        seed=draw_seed(sampling, draw) if sampling.temperature > 0 else None,
        detokenize=False,
        extra_args={ROW_KEY: row},
    )


def _cache_bytes(options: EngineOptions, config: dict[str, Any]) -> int | None:
    """None: vLLM takes what `gpu_memory_utilization` leaves."""
    from vllm.platforms import current_platform

    return options.cpu_cache_bytes(config) if current_platform.is_cpu() else None


def _import_vllm() -> Any:
    prepare_environment()
    try:
        with collector_paused():
            import vllm
            from vllm import LLM  # noqa: F401 - loaded at its first mention only
    except ImportError as error:
        raise EvaluationError(f"{VLLM_NOT_INSTALLED} ({error})") from error
    return vllm

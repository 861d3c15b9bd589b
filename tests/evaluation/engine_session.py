"""One process with a real vLLM engine: goes through its life and writes down what happened.

    python -m tests.evaluation.engine_session MODELS_DIR OUT.json

In a process of its own, because an in-process engine binds threads to cores for good.
"""

import json
import sys
import weakref
from dataclasses import asdict
from pathlib import Path

from sft_dist.errors import EvaluationError, ModelError
from sft_dist.evaluation import entropy_log, vllm_extension
from sft_dist.evaluation.engine_options import architecture
from sft_dist.evaluation.request import Sampling
from sft_dist.evaluation.self_test import reload_fault
from sft_dist.evaluation.vllm_extension import ReloadExtension
from sft_dist.evaluation.vllm_generator import EngineOptions, VllmGenerator
from tests.evaluation.models import GREEDY, problem, problems

HEAD = "the packed head"
STALE_PARAMETERS = ("model.layers.0.self_attn.qkv_proj.weight",)


def stale_reload(name, repaired):
    """A reload that leaves one thing as it was: the head that is applied, or a parameter."""

    def reload(worker, path):
        if name == HEAD:  # what vLLM 0.32 does on a CPU
            worker.reload_weights(weights_path=path)
            return
        model = worker.model_runner.get_model()
        layer = model.get_submodule(name.rpartition(".")[0])
        tensor, kernel = layer.weight.detach().clone(), getattr(layer, "cpu_linear", None)
        repaired(worker, path)
        layer.weight.data.copy_(tensor)
        if kernel is not None:  # the matrix is in there, and the parameter empty
            layer.cpu_linear = kernel

    return reload


def kept_after_the_end(engine, other_model):
    """Names of the parameters of a reloaded engine that memory still holds when it is closed."""
    assert engine.load(other_model)["loaded"] == "in place"
    (model,) = engine._llm.collective_rpc(lambda worker: worker.model_runner.get_model())
    held = {name: weakref.ref(parameter) for name, parameter in model.named_parameters()}
    del model
    assert held
    engine.close()
    return [name for name, parameter in held.items() if parameter() is not None]


def refused(load):
    try:
        return f"loaded: {load()}"
    except EvaluationError as error:
        return str(error)


def main(models: Path, out: Path) -> None:
    record: dict = {}
    engine = VllmGenerator(EngineOptions(max_model_len=64))

    def decode(items, sampling=GREEDY):
        seen: list[int] = []
        completions = engine.generate(items, sampling, seen.append)
        return {"rows": [asdict(c) for c in completions], "seen": seen}

    record["first load"] = engine.load(models / "m1")
    record["m1"] = decode(problems(6))
    record["second load"] = engine.load(models / "m2")
    record["m2"] = decode(problems(6))
    record["bin load"] = engine.load(models / "m1_bin")
    record["m1_bin"] = decode(problems(6))

    engine.load(models / "m2")
    engine._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(models / "m1")})
    (record["stale"],) = engine._llm.collective_rpc("sft_mismatches", args=(str(models / "m1"),))
    record["m1 with the head of m2"] = decode(problems(6))

    repaired, proof = ReloadExtension.sft_reload, vllm_extension.mismatches
    for name in (HEAD, *STALE_PARAMETERS):
        engine.load(models / "m2")
        ReloadExtension.sft_reload = stale_reload(name, repaired)
        record[f"stale {name}"] = refused(lambda: engine.load(models / "m1"))
        ReloadExtension.sft_reload = repaired
    record["load after a refusal"] = engine.load(models / "m1")
    record["m1 again"] = decode(problems(6))

    def self_test(model=models / "m1"):
        options = EngineOptions(max_model_len=64)
        return reload_fault(
            lambda: VllmGenerator(options), model, architecture=architecture(model), cache_dir=None
        )

    # vLLM's groups are those of the process: the end of one engine is that of all.
    record["kept after the end"] = kept_after_the_end(engine, models / "m2")
    record["self-test"] = self_test()
    record["self-test of a wide model"] = self_test(models / "wide")
    ReloadExtension.sft_reload = stale_reload(HEAD, repaired)
    vllm_extension.mismatches = lambda *_, **__: []  # a proof that sees nothing
    record["self-test of a stale head"] = self_test()
    ReloadExtension.sft_reload, vllm_extension.mismatches = repaired, proof

    engine.load(models / "m1")

    try:
        engine.load(models / "nowhere")
    except ModelError as error:
        record["missing"] = str(error)
    record["m1 after a missing model"] = decode(problems(6))

    sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
    record["sampled"] = [decode(problems(5), sampling), decode(problems(5)[::-1], sampling)]

    record["bfloat16 load"] = engine.load(models / "bfloat16")
    vocabulary = architecture(models / "bfloat16")["vocab_size"]
    entropy_log.LOGITS_AT_ONCE_CPU = 4 * vocabulary  # fewer rows than requests in a step
    items = [problem("long", "x" * 200), *problems(6), problem("nearly", "x" * 125)]
    record["bfloat16"] = decode(items)
    engine.close()
    out.write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""One engine shared by two processes, as GPUs would share it, here two cores.

VLLM_CPU_OMP_THREADS_BIND='0|1' python -m tests.evaluation.tensor_parallel_session MODELS OUT
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.engine_options import EngineOptions, prepare_environment
from tests.evaluation.models import GREEDY, problems


def main(models: Path, out: Path) -> None:
    prepare_environment()
    from sft_dist.evaluation.vllm_generator import VllmGenerator

    engine = VllmGenerator(
        EngineOptions(max_model_len=64, tensor_parallel=2, gpu_memory_utilization=0.1)
    )
    record = {}
    for name in ("m1", "m2"):
        facts = engine.load(models / name)
        rows = [asdict(c) for c in engine.generate(problems(6), GREEDY, lambda _: None)]
        record[name] = {"facts": facts, "rows": rows}
    engine._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(models / "m1")})
    try:
        engine._prove(models / "m1")
    except EvaluationError as error:
        record["stale"] = str(error)
    out.write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

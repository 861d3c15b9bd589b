"""The process that owns the evaluation engine, and when it ends; its loop is in `serving.py`.

    python -m sft_dist.evaluation.worker RUN_DIR --backend vllm --warm_model MODEL_DIR

Started by `client.py` beside the trainer, or by hand (with `--no_stdin`) on any machine that sees
the run directory; any number of workers may share one. It builds its engine on `--warm_model`
while training starts. It ends when its standard input does: then its trainer has died or wants it
gone. A generation under way is dropped at once, its claim left to the next worker, unless
`--finish_open` asks to finish what is open first.
"""

import argparse
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sft_dist.errors import EvaluationError, ModelError
from sft_dist.evaluation.claims import Claimer
from sft_dist.evaluation.generator import Generator
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.serving import EvaluationWorker
from sft_dist.garbage import collector_paused

logger = logging.getLogger(__name__)

EXIT_GRACE_SECONDS = 10.0
STALL_SECONDS = 1800.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run a worker until its standard input ends."""
    arguments = _parser().parse_args(argv)
    _log_to_stderr()
    os.nice(arguments.nice)  # before there are threads: they inherit it
    stop, leave = threading.Event(), threading.Event()
    claimer = Claimer(
        EvaluationQueue(arguments.run_dir),
        arguments.worker_id,
        stale_seconds=arguments.stale_seconds,
    )
    with collector_paused():  # the imports; engines collect what they leave by themselves
        generator = build_generator(arguments, reload_fault=self_test(arguments))
    worker = EvaluationWorker(
        claimer,
        generator,
        stop=stop,
        leave=leave,
        on_stall=_die,
        stall_seconds=STALL_SECONDS,
        warm_model=arguments.warm_model,
    )
    _stop_on_signals(stop)
    ending = leave if arguments.finish_open else stop
    if arguments.no_stdin:
        if arguments.finish_open:
            leave.set()
    else:
        threading.Thread(target=_watch_stdin, args=(ending,), daemon=True).start()
    threading.Thread(target=_leave_late, args=(worker, stop), daemon=True).start()
    _warm_up(generator, arguments.warm_model)
    worker.run()
    if arguments.tensor_parallel > 1:  # else no process of the engine outlives this one
        generator.close()
    logging.shutdown()
    os._exit(0)  # taking everything down in order takes two seconds, and the trainer waits


def self_test(arguments: argparse.Namespace) -> str | None:
    """Why this engine must not be reloaded in place; None when it may (or never is: hf)."""
    if arguments.backend != "vllm" or arguments.warm_model is None:
        return None
    from sft_dist.evaluation.engine_options import EngineOptions, architecture
    from sft_dist.evaluation.self_test import reload_fault

    try:
        config = architecture(arguments.warm_model)
        fault = reload_fault(
            lambda: build_generator(arguments),
            arguments.warm_model,
            architecture={
                **config,
                "computes_in": EngineOptions().resolved_dtype(config),
                "tensor_parallel": arguments.tensor_parallel,
                "enforce_eager": arguments.enforce_eager,
            },
            cache_dir=arguments.self_test_cache,
        )
    # Whatever the test's own models cannot do, the run's may; where there is no engine at all, the
    # first request says so.
    except Exception as error:
        logger.warning("the self-test failed", exc_info=True)
        fault = f"the self-test could not be made: {error!r}"
    if fault is not None:
        logger.error("self-test: %s; each evaluation gets a new engine", fault)
    return fault


def build_generator(arguments: argparse.Namespace, *, reload_fault: str | None = None) -> Generator:
    """The back-end asked for. Raises EvaluationError when it is not installed."""
    if arguments.backend == "hf":
        from sft_dist.evaluation.hf_generator import HfGenerator

        return HfGenerator(batch_size=arguments.eval_batch_size)
    from sft_dist.evaluation.engine_options import EngineOptions, prepare_environment

    prepare_environment()
    from sft_dist.evaluation.vllm_generator import VllmGenerator

    return VllmGenerator(
        EngineOptions(
            max_model_len=arguments.max_model_len,
            gpu_memory_utilization=arguments.gpu_memory_utilization,
            enforce_eager=arguments.enforce_eager,
            tensor_parallel=arguments.tensor_parallel,
            reload_fault=reload_fault,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sft_dist.evaluation.worker")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--backend", choices=["vllm", "hf"], default="vllm")
    parser.add_argument("--warm_model", type=Path, help="build the engine on this model at once")
    parser.add_argument("--self_test_cache", type=Path, help="where its verdicts are kept")
    parser.add_argument("--max_model_len", type=int, help="tokens of prompt and completion")
    parser.add_argument("--gpu_memory_utilization", type=float, default=0.9)
    parser.add_argument("--tensor_parallel", type=int, default=1, help="devices of one engine")
    parser.add_argument("--enforce_eager", action="store_true")
    parser.add_argument("--eval_batch_size", type=int, default=16, help="of the hf back-end")
    parser.add_argument("--nice", type=int, default=0, help="give way to training on a CPU")
    parser.add_argument("--worker_id", help="name in claims; default: host and process id")
    parser.add_argument("--stale_seconds", type=float, default=120.0)
    parser.add_argument("--finish_open", action="store_true", help="leave when nothing is open")
    parser.add_argument("--no_stdin", action="store_true", help="do not end with standard input")
    return parser


def _warm_up(generator: Generator, model_dir: Path | None) -> None:
    """Build the engine early. A failure here is left to the first request, which reports it."""
    if model_dir is None:
        return
    try:
        logger.info("engine built: %s", generator.load(model_dir))
    except (EvaluationError, ModelError) as error:
        logger.error("warming up on %s failed: %s", model_dir, error)


def _watch_stdin(ending: threading.Event) -> None:
    """Set `ending` at the end of standard input, or when the parent process changes.

    The pipe alone is not enough: a child that the trainer forked holds a copy of its other end.
    """
    parent = os.getppid()
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], 1.0)
        if readable and not os.read(sys.stdin.fileno(), 1 << 12):
            break
    logger.info("standard input has ended, leaving")
    ending.set()


def _leave_late(worker: EvaluationWorker, stop: threading.Event) -> None:
    """End the process when the main thread, deep in an engine, does not see `stop` in time."""
    stop.wait()
    time.sleep(EXIT_GRACE_SECONDS)
    claim = worker.current
    if claim is not None:
        claim.release()
    logger.warning("still busy %g s after being told to leave: exit", EXIT_GRACE_SECONDS)
    os._exit(1)


def _die() -> None:
    """End a process whose engine hangs: its parent starts another, and counts the attempt."""
    logger.critical("no step of the engine for %g s: exit", STALL_SECONDS)
    os._exit(1)


def _stop_on_signals(stop: threading.Event) -> None:
    def handle(number: int, frame: object) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )


if __name__ == "__main__":
    main()

"""The worker's loop: claim a request, load its weights, decode, publish; with any back-end."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from sft_dist.errors import ModelError
from sft_dist.evaluation.claims import Claim, Claimer
from sft_dist.evaluation.generator import Completion, Generator
from sft_dist.evaluation.request import read_problems
from sft_dist.fingerprint import weights_fingerprint

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """Raised inside a generation when the worker is to leave."""


class EvaluationWorker:
    """The loop, independent of the back-end and of how it is told to stop."""

    def __init__(
        self,
        claimer: Claimer,
        generator: Generator,
        *,
        stop: threading.Event,
        leave: threading.Event | None = None,
        poll_seconds: float = 0.2,
        heartbeat_seconds: float = 2.0,
        stall_seconds: float = float("inf"),
        on_stall: Callable[[], None] = lambda: None,
        warm_model: Path | None = None,
    ) -> None:
        """`stop` ends the loop now, `leave` when no request is open.

        `warm_model` is where the base model lies on this host.

        `on_stall` is called, on another thread, when loading or a step of the engine takes longer
        than `stall_seconds`.
        """
        self._claimer = claimer
        self._generator = generator
        self._stop = stop
        self._leave = leave or threading.Event()
        self._poll_seconds = poll_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._stall_seconds = stall_seconds
        self._on_stall = on_stall
        self._warm_model = warm_model
        self.current: Claim | None = None
        self._loaded: tuple[str, dict[str, Any]] | None = None  # fingerprint and facts

    def run(self) -> None:
        """Serve requests until told to stop."""
        while not self._stop.is_set():
            claim = self._claimer.claim_next()
            if claim is not None:
                self.current = claim
                self._serve(claim)
                self.current = None
            elif self._leave.is_set() and not self._claimer.has_open():
                return
            else:
                self._stop.wait(self._poll_seconds)

    def _serve(self, claim: Claim) -> None:
        request = claim.queued.request
        logger.info("step %d, attempt %d: %s", request.step, claim.attempt, request.model_dir)
        heartbeat = _Heartbeat(claim, self._heartbeat_seconds, self._stop)
        heartbeat.on_stall(self._stall_seconds, self._on_stall)
        try:
            with heartbeat:
                completions, facts = self._generate(claim, heartbeat)
            published = claim.publish(completions, facts)
            logger.info("step %d: %s", request.step, "published" if published else "not the first")
        except Stopped:
            self._loaded = None
            claim.release()
        except ModelError as error:  # nobody can generate from these weights
            self._loaded = None
            logger.error("step %d: %s", request.step, error)
            claim.fail(str(error))
        # The border to the engine: whatever it raises costs this attempt, not the worker.
        except Exception as error:
            self._loaded = None
            logger.exception("step %d, attempt %d failed", request.step, claim.attempt)
            claim.give_up(f"{type(error).__name__}: {error}")

    def _generate(
        self, claim: Claim, heartbeat: "_Heartbeat"
    ) -> tuple[list[Completion], dict[str, Any]]:
        request = claim.queued.request
        problems = read_problems(self._claimer.queue.run_dir / request.problems_file)
        model_dir = self._located(Path(request.model_dir))
        found = weights_fingerprint(model_dir)
        if found != request.weights_fingerprint:
            raise ModelError(
                f"{request.model_dir} no longer holds the weights that were submitted: expected "
                f"fingerprint {request.weights_fingerprint[:12]}, found {found[:12]} in {model_dir}"
            )
        facts = self._load(model_dir, found)
        heartbeat.progress(0)
        started = time.monotonic()
        completions = self._generator.generate(problems, request.sampling, heartbeat.progress)
        seconds = time.monotonic() - started
        num_tokens = sum(completion.num_tokens for completion in completions)
        return completions, {
            **facts,
            "worker": claim.worker,
            "weights_fingerprint": found,
            "seconds": round(seconds, 3),
            "num_tokens": num_tokens,
        }

    def _located(self, model_dir: Path) -> Path:
        """Where the weights lie on this host, which may see the run under another path.

        What is found is believed by its fingerprint only.
        """
        run_dir = self._claimer.queue.run_dir
        inside = (run_dir / model_dir.name, run_dir / model_dir.parent.name / model_dir.name)
        places = [model_dir, *inside, *filter(None, [self._warm_model])]
        return next((place for place in places if place.is_dir()), model_dir)

    def _load(self, model_dir: Path, fingerprint: str) -> dict[str, Any]:
        """Load and prove weights, unless the last request was answered with the same ones."""
        if self._loaded is not None and self._loaded[0] == fingerprint:
            return {**self._loaded[1], "loaded": "kept", "load_seconds": 0.0}
        self._loaded = None
        facts = self._generator.load(model_dir)
        self._loaded = (fingerprint, facts)
        return facts


class _Heartbeat:
    """Beats from a thread of its own, as the engine holds the main thread for seconds."""

    def __init__(self, claim: Claim, seconds: float, stop: threading.Event) -> None:
        self._claim = claim
        self._seconds = seconds
        self._stop = stop
        self._completed = 0
        self._last_step = time.monotonic()
        self._stall_seconds = float("inf")
        self._on_stall: Callable[[], None] = lambda: None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def on_stall(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` when no progress is noted for so long."""
        self._stall_seconds = seconds
        self._on_stall = action

    def progress(self, completed: int) -> None:
        """Take the count of finished completions; raises Stopped when the worker is to leave."""
        self._completed = completed
        self._last_step = time.monotonic()
        if self._stop.is_set():
            raise Stopped

    def __enter__(self) -> "_Heartbeat":
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._done.wait(self._seconds):
            if time.monotonic() - self._last_step > self._stall_seconds:
                self._on_stall()
            try:
                self._claim.beat(self._completed)
            except OSError as error:  # a full disk or a hiccup of the network: try again
                logger.warning("heartbeat not written: %s", error)

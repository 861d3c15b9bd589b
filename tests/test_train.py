"""How a run says that it has ended."""

import json
from types import SimpleNamespace

from sft_dist.train import finish

STEPS = 4


class Evaluations:
    """One evaluation is open; its result comes when `arrives`."""

    def __init__(self, arrives):
        self.reading, self.arrives = {STEPS}, arrives

    def drain(self, until):
        while self.reading and not until():
            if self.arrives:
                self.reading.clear()
                yield SimpleNamespace(step=STEPS)

    def steps_reading(self):
        return self.reading

    def close(self):
        pass


def ended(run_dir, *, step=STEPS, arrives=True, asked=None, seconds=60):
    """`status.json` of a run that leaves its loop at `step`; `asked` comes while it waits."""
    nothing = SimpleNamespace(close=lambda: None, finish=lambda: None, tidy=lambda *_: None)
    loop = SimpleNamespace(
        plan=SimpleNamespace(total_steps=STEPS),
        config=SimpleNamespace(evaluation=SimpleNamespace(eval_drain_timeout=seconds)),
        evaluations=Evaluations(arrives),
        failed_evaluations=[],
        accuracies={},
        stop=SimpleNamespace(reason="SIGUSR1" if step < STEPS else None),
        report=lambda results: None,
        saving=nothing,
        tracker=nothing,
        page=nothing,
    )
    stop = SimpleNamespace(requested=lambda: asked is not None, reason=asked)
    finish(loop, SimpleNamespace(step=step), run_dir, stop)
    return json.loads((run_dir / "status.json").read_text())


def test_all_steps_and_all_evaluations_done_is_finished(tmp_path):
    status = ended(tmp_path)
    assert (status["state"], status["unscored"]) == ("finished", [])


def test_a_stop_before_the_last_step_is_to_be_continued(tmp_path):
    status = ended(tmp_path, step=2)
    assert (status["state"], status["reason"]) == ("requeue", "SIGUSR1")


def test_a_stop_while_evaluations_are_open_is_to_be_continued(tmp_path):
    status = ended(tmp_path, arrives=False, asked="SIGTERM")
    assert (status["state"], status["reason"]) == ("requeue", "SIGTERM")


def test_an_evaluation_that_does_not_come_in_time_is_named(tmp_path):
    status = ended(tmp_path, arrives=False, seconds=0)
    assert (status["state"], status["unscored"]) == ("finished", [STEPS])

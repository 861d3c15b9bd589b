"""The run directory as a queue: claims, takeover, publication. Files only, no process."""

import errno
import json
import os
import shutil

import pytest

from sft_dist.evaluation.claims import Claimer
from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.queue import EvaluationQueue, QueuedRequest
from sft_dist.evaluation.request import (
    EvaluationRequest,
    Sampling,
    problems_file,
    problems_text,
)
from tests.evaluation.models import problems

PROBLEMS = problems_text(problems(2))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def queue(tmp_path):
    return EvaluationQueue(tmp_path)


@pytest.fixture
def clock():
    return Clock()


def request(step=500, fingerprint="f", model_dir="/models/x"):
    return EvaluationRequest(
        step=step,
        model_dir=model_dir,
        weights_fingerprint=fingerprint,
        prompt_name="default",
        form="boxed",
        sampling=Sampling(max_new_tokens=8),
        problems_file=problems_file(PROBLEMS),
        num_problems=2,
    )


def completions(text="one"):
    return [Completion(f"p{i}", text, 3, "stop", 0.1) for i in range(2)]


def claimer(queue, name, clock=None, **options):
    return Claimer(queue, name, stale_seconds=10.0, clock=clock or Clock(), **options)


def published_text(queued):
    rows = (queued.directory / "completions.jsonl").read_text().splitlines()
    return {json.loads(row)["response"] for row in rows}


def test_requests_are_claimed_by_step_and_each_once(queue):
    for step in (1000, 0, 500):
        queue.submit(request(step), PROBLEMS)
    one, other = claimer(queue, "one"), claimer(queue, "other")
    claims = [one.claim_next(), other.claim_next(), one.claim_next(), other.claim_next()]
    assert [claim and claim.queued.request.step for claim in claims] == [0, 500, 1000, None]


def test_the_same_request_twice_is_one(queue):
    first = queue.submit(request(), PROBLEMS)
    again = queue.submit(request(), PROBLEMS)
    assert first.directory == again.directory
    assert len(list(queue.requests())) == 1


def test_a_published_request_is_not_claimed_again(queue):
    queued = queue.submit(request(), PROBLEMS)
    worker = claimer(queue, "one")
    assert worker.claim_next().publish(completions(), {"seconds": 1.0})
    assert queued.is_published
    assert not worker.has_open()
    assert worker.claim_next() is None
    assert queued.published_facts() == {"attempt": 1, "seconds": 1.0}


def test_a_living_claim_is_left_alone_however_long_it_takes(queue, clock):
    queue.submit(request(), PROBLEMS)
    claim = claimer(queue, "one").claim_next()
    observer = claimer(queue, "other", clock)
    for seconds in range(0, 100, 9):
        clock.now = seconds
        claim.beat(0)
        assert observer.claim_next() is None


def test_a_claim_without_heartbeat_is_taken_over_with_a_higher_number(queue, clock):
    queued = queue.submit(request(), PROBLEMS)
    claimer(queue, "dead").claim_next()
    observer = claimer(queue, "other", clock)
    assert observer.claim_next() is None
    clock.now = 9.9
    assert observer.claim_next() is None
    clock.now = 10.1
    claim = observer.claim_next()
    assert claim.attempt == 2
    assert queued.attempts() == [1, 2]


def test_staleness_is_seen_by_the_observer_not_read_from_clocks(queue, clock):
    queued = queue.submit(request(), PROBLEMS)
    claimer(queue, "dead").claim_next()
    heartbeat = queued.attempt_directory(1) / "heartbeat.json"
    os.utime(heartbeat, (0, 0))  # written in 1970, says the other host's clock
    clock.now = 1e9
    assert claimer(queue, "other", clock).claim_next() is None


def test_a_crash_between_claim_and_first_heartbeat_goes_stale_too(queue, clock):
    queued = queue.submit(request(), PROBLEMS)
    queued.attempt_directory(1).mkdir()
    observer = claimer(queue, "other", clock)
    assert observer.claim_next() is None
    clock.now = 11
    assert observer.claim_next().attempt == 2


def test_a_slow_worker_thought_dead_publishes_first_and_the_other_does_not(queue, clock):
    queued = queue.submit(request(), PROBLEMS)
    slow = claimer(queue, "slow").claim_next()
    observer = claimer(queue, "other", clock)
    observer.claim_next()
    clock.now = 11
    second = observer.claim_next()
    assert slow.publish(completions("slow"), {"who": "slow"})
    assert not second.publish(completions("second"), {"who": "second"})
    assert published_text(queued) == {"slow"}
    assert queued.published_facts()["who"] == "slow"


def test_publication_happens_once_without_hard_links_too(queue, clock, monkeypatch):
    def no_links(source, target):
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    queued = queue.submit(request(), PROBLEMS)
    slow = claimer(queue, "slow").claim_next()
    observer = claimer(queue, "other", clock)
    observer.claim_next()
    clock.now = 11
    second = observer.claim_next()
    assert second.publish(completions("second"), {})
    assert not slow.publish(completions("slow"), {})
    assert published_text(queued) == {"second"}


def test_a_request_published_while_another_looks_is_not_claimed_again(queue, monkeypatch):
    queued = queue.submit(request(), PROBLEMS)
    claim = claimer(queue, "one").claim_next()
    observer = claimer(queue, "other")

    def publish_meanwhile(*_):
        claim.publish(completions(), {})
        return True

    monkeypatch.setattr(observer, "_is_free", publish_meanwhile)
    assert observer.claim_next() is None
    assert queued.attempts() == [1]


def test_a_crash_while_publishing_leaves_nothing_half_done(queue, monkeypatch):
    queued = queue.submit(request(), PROBLEMS)
    claim = claimer(queue, "one").claim_next()

    def crash(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", crash)
    with pytest.raises(KeyboardInterrupt):
        claim.publish(completions(), {})
    assert queued.is_open
    assert not (queued.directory / "completions.jsonl").exists()


def test_a_released_claim_is_free_at_once_and_does_not_count(queue):
    queued = queue.submit(request(), PROBLEMS)
    worker = claimer(queue, "one", max_attempts=2)
    for attempt in range(1, 6):
        claim = worker.claim_next()
        assert claim.attempt == attempt
        claim.release()
    assert queued.failure() is None


def test_a_request_that_fails_again_and_again_is_given_up_with_the_reason(queue):
    queued = queue.submit(request(), PROBLEMS)
    worker = claimer(queue, "one", max_attempts=2)
    worker.claim_next().give_up("out of memory")
    worker.claim_next().give_up("out of memory again")
    assert worker.claim_next() is None
    assert "2 attempts" in queued.failure()
    assert "out of memory again" in queued.failure()


def test_a_failed_request_submitted_again_is_opened_again(queue):
    queued = queue.submit(request(), PROBLEMS)
    worker = claimer(queue, "one", max_attempts=2)
    worker.claim_next().give_up("a")
    worker.claim_next().fail("the model is gone")
    assert queued.failure() == "the model is gone"
    assert worker.claim_next() is None
    queue.submit(request(model_dir="/models/found"), PROBLEMS)
    claim = worker.claim_next()
    assert claim.attempt == 3
    assert claim.queued.request.model_dir == "/models/found"


def test_a_dead_workers_claims_are_free_when_its_parent_says_so(queue):
    queued = queue.submit(request(0), PROBLEMS)
    queue.submit(request(500), PROBLEMS)
    claimer(queue, "dead").claim_next()
    alive = claimer(queue, "alive").claim_next()
    queue.abandon("dead", "killed by signal 9")
    claim = claimer(queue, "next").claim_next()
    assert (claim.queued.request.step, claim.attempt) == (0, 2)
    assert queued.heartbeat(1)["reason"] == "killed by signal 9"
    assert alive.queued.heartbeat(1)["state"] == "running"


def test_progress_is_that_of_the_attempt_under_way(queue):
    queued = queue.submit(request(), PROBLEMS)
    assert queued.progress() == 0
    claimer(queue, "one").claim_next().beat(1)
    assert queued.progress() == 1


def test_a_request_whose_directory_vanishes_is_no_error(queue):
    queued = queue.submit(request(), PROBLEMS)
    worker = claimer(queue, "one")
    shutil.rmtree(queued.directory)
    assert worker.claim_next() is None


def test_what_is_no_request_is_skipped_and_the_rest_served(queue, caplog):
    broken = queue.submit(request(0), PROBLEMS)
    (broken.directory / "request.json").write_text('{"step": 0, "color": "red"}')
    queue.submit(request(500), PROBLEMS)
    worker = claimer(queue, "one")
    assert worker.claim_next().queued.request.step == 500
    assert worker.claim_next() is None
    assert caplog.text.count("not a request this version understands") == 1


def test_facts_are_those_of_the_published_attempt_not_of_the_last(queue, clock):
    queued = queue.submit(request(), PROBLEMS)
    first = claimer(queue, "one").claim_next()
    observer = claimer(queue, "two", clock)
    observer.claim_next()
    clock.now = 11
    second = observer.claim_next()
    first.publish(completions(), {"who": "one"})
    second.publish(completions(), {"who": "two"})
    assert isinstance(queued, QueuedRequest)
    assert queued.published_facts() == {"attempt": 1, "who": "one"}

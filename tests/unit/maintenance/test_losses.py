"""A loss on its way from maintenance to the app's handlers."""

from __future__ import annotations

import json
from random import Random

import pytest

from taskharbor.decision import Lost, decide
from taskharbor.drivers.base import Settled
from taskharbor.lease import Verdict
from taskharbor.maintenance.losses import Loss, losses_among
from taskharbor.message import DEFAULT_POLICY
from taskharbor.settlement import Settlement
from taskharbor.signals import AttemptEnded, Signals
from taskharbor.states import Reason, State
from tests.unit.maintenance.store import Shop


@pytest.fixture
def loss(shop: Shop) -> Loss:
    (job,) = shop.running()
    outcome = Lost(b"what happened")
    return Loss.of(job, decide(job, DEFAULT_POLICY, outcome, now=0.0, rng=Random(1)))


def test_it_survives_the_channels(loss: Loss) -> None:
    assert Loss.from_fields(json.loads(json.dumps(loss.to_fields()))) == loss


def test_handlers_of_lost_and_of_what_became_of_the_job_are_called(loss: Loss) -> None:
    signals = Signals()
    heard: list[tuple[str, AttemptEnded]] = []
    signals.lost.connect(lambda event: heard.append(("lost", event)))
    signals.retried.connect(lambda event: heard.append(("retried", event)))
    signals.dead.connect(lambda event: heard.append(("dead", event)))
    loss.send(signals)
    assert [name for name, _ in heard] == ["lost", "retried"]
    event = heard[0][1]
    assert (event.job_id, event.attempt, event.fence) == (loss.job_id, 1, loss.fence)
    assert event.error == b"what happened"


def test_a_job_past_its_hard_limit_is_told_by_its_end_and_is_no_loss(shop: Shop) -> None:
    (job,) = shop.running()
    settlement = Settlement.die(job.id, job.fence, error=None, reason=Reason.TIMED_OUT)
    answers = [Settled(Verdict.APPLIED, State.DEAD)]
    (told,) = losses_among([job], [settlement], answers)
    assert Loss.from_fields(json.loads(json.dumps(told.to_fields()))) == told
    signals = Signals()
    heard: list[AttemptEnded] = []
    signals.dead.connect(heard.append)
    signals.lost.connect(heard.append)
    told.send(signals)
    assert [event.reason for event in heard] == [Reason.TIMED_OUT]


def test_only_losses_that_the_store_applied_are_told(shop: Shop) -> None:
    jobs = shop.running(3)
    settlements = [
        Settlement.release(jobs[0].id, jobs[0].fence, loss=True),
        Settlement.release(jobs[1].id, jobs[1].fence, loss=True),
        Settlement.release(jobs[2].id, jobs[2].fence),
    ]
    answers = [
        Settled(Verdict.APPLIED, State.READY),
        Settled(Verdict.MISMATCH, State.RUNNING),
        Settled(Verdict.APPLIED, State.READY),
    ]
    assert [loss.job_id for loss in losses_among(jobs, settlements, answers)] == [jobs[0].id]

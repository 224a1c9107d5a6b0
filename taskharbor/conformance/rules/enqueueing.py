"""Enqueue: what is stored, in which state, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import Suite, apply, get, ids, job, put, state, take, take_one
from taskharbor.drivers.base import Enqueued, InspectableDriver, Job, JobFilter
from taskharbor.errors import ConfigurationError
from taskharbor.message import Message, Policy, check_name
from taskharbor.settlement import Settlement
from taskharbor.states import STARTS, Reason, State


class _BreaksHalfWay(list[Message]):
    """A batch whose second half can't be read."""

    def __iter__(self) -> Iterator[Message]:
        yield from self[: len(self) // 2]
        raise LookupError("half way")


class EnqueueRules(Suite):
    @in_one_shard
    def test_a_new_job_is_stored_as_it_was_given(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        message = job(
            queue="mail",
            priority=-7,
            delay=5.0,
            expires_in=60.0,
            idempotency_key="order 7",
            policy=Policy(max_attempts=3),
        )
        driver.enqueue([message])
        assert driver.get("a") == Job(
            id="a",
            task="demo.task",
            queue="mail",
            state=State.SCHEDULED,
            reason=Reason.ENQUEUED,
            priority=-7,
            body=message.body,
            enqueued_at=clock.now(),
            due_at=clock.now() + 5,
            expires_at=clock.now() + 60,
            idempotency_key="order 7",
        )

    @pytest.mark.parametrize(
        ("due", "expected"),
        [
            ({}, State.READY),
            ({"delay": 0.25}, State.SCHEDULED),
            ({"eta": 0.0}, State.READY),
            ({"eta": ManualClock().now()}, State.READY),
            ({"eta": ManualClock().now() + 0.25}, State.SCHEDULED),
        ],
        ids=["now", "delay", "eta long past", "eta now", "eta to come"],
    )
    def test_a_job_due_now_is_ready_else_scheduled(
        self, driver: InspectableDriver, due: dict[str, Any], expected: State
    ) -> None:
        driver.enqueue([job(**due)])
        assert state(driver) is expected
        assert expected in STARTS

    def test_a_past_eta_means_now(self, driver: InspectableDriver, clock: ManualClock) -> None:
        driver.enqueue([job(eta=clock.now() - 100)])
        assert get(driver).due_at == clock.now()

    def test_answers_come_in_order(self, driver: InspectableDriver) -> None:
        put(driver, "b")
        assert put(driver, "c", "b", "a") == [
            Enqueued("c", created=True),
            Enqueued("b", created=False),
            Enqueued("a", created=True),
        ]

    def test_an_id_that_is_stored_changes_nothing(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        driver.enqueue([job(digest=b"first")])
        before = get(driver)
        clock.advance(1)
        other = job(queue="other", priority=9, delay=5.0, task="other.task", digest=b"second")
        assert driver.enqueue([other]) == [Enqueued("a", created=False, same_request=False)]
        assert driver.enqueue([job(digest=b"first")]) == [
            Enqueued("a", created=False, same_request=True)
        ]
        assert get(driver) == before
        assert [queue.name for queue in driver.queues()] == ["default"]

    def test_an_id_stays_taken_through_the_job_s_life(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        lease = take_one(driver)
        assert not put(driver, "a")[0].created
        assert state(driver) is State.RUNNING
        apply(driver, Settlement.succeed("a", lease.fence, b"result"))
        assert not put(driver, "a")[0].created
        assert get(driver).result == b"result"
        assert take(driver) == []

    def test_the_same_id_twice_in_one_batch(self, driver: InspectableDriver) -> None:
        answers = driver.enqueue([job(digest=b"1"), job(digest=b"2", priority=5)])
        assert answers == [Enqueued("a", True), Enqueued("a", False, same_request=False)]
        assert get(driver).priority == 0
        assert ids(take(driver, 10)) == ["a"]

    def test_an_error_in_the_middle_stores_nothing(self, driver: InspectableDriver) -> None:
        job_ids = [driver.new_job_id("k") for _ in range(7)]
        batch = _BreaksHalfWay([job(job_id, idempotency_key="k") for job_id in job_ids[1:]])
        with pytest.raises(LookupError, match="half way"):
            driver.enqueue(batch)
        assert driver.list_jobs(JobFilter()).jobs == []
        last = job(job_ids[0], idempotency_key="k")
        assert driver.enqueue([last]) == [Enqueued(last.id, created=True)]

    def test_an_empty_batch_is_nothing(self, driver: InspectableDriver) -> None:
        assert driver.enqueue([]) == []
        assert driver.queues() == []

    @in_one_shard
    def test_a_big_batch_keeps_its_order(self, driver: InspectableDriver) -> None:
        job_ids = [f"a{number}" for number in range(3000)]
        assert put(driver, *job_ids) == [Enqueued(job_id, created=True) for job_id in job_ids]
        assert ids(take(driver, len(job_ids))) == job_ids

    def test_bodies_of_any_bytes_come_back(self, driver: InspectableDriver) -> None:
        bodies = {
            "empty": b"",
            "every-byte": bytes(range(256)),
            "big": b"\x00\xff" * (1 << 19),
            "text": "naïve ☃".encode(),
        }
        driver.enqueue([job(job_id, body=body) for job_id, body in bodies.items()])
        assert {lease.id: lease.body for lease in take(driver, 10)} == bodies
        assert {job_id: get(driver, job_id).body for job_id in bodies} == bodies

    def test_names_of_any_allowed_character(self, driver: InspectableDriver) -> None:
        odd = "0aZ_.:-" * 18
        driver.enqueue([job(odd, queue=odd, task=odd)])
        (lease,) = take(driver, queue=odd)
        assert (lease.id, lease.queue, lease.task) == (odd,) * 3

    @in_one_shard
    def test_ids_that_differ_only_in_case_are_different(self, driver: InspectableDriver) -> None:
        assert all(answer.created for answer in put(driver, "A", "a", queue="Q"))
        put(driver, "b", queue="q")
        assert ids(take(driver, 10, queue="Q")) == ["A", "a"]
        assert ids(take(driver, 10, queue="q")) == ["b"]

    def test_a_connection_that_can_t_be_joined_is_refused(self, driver: InspectableDriver) -> None:
        with pytest.raises(ConfigurationError):
            driver.enqueue([job()], connection=object())
        assert state(driver) is None

    def test_new_ids_are_valid_and_different(self, driver: InspectableDriver) -> None:
        new_ids = [driver.new_job_id(key) for key in (None, "k", "naïve key") for _ in range(100)]
        assert len(set(new_ids)) == 300
        for job_id in new_ids:
            check_name("job id", job_id)
        driver.enqueue([job(driver.new_job_id("k"), idempotency_key="k")])

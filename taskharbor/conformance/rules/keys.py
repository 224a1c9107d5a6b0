"""Idempotency keys: one job per key and queue, for as long as the key is kept."""

from __future__ import annotations

from typing import Any

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    FORGET_AT_ONCE,
    Suite,
    apply,
    get,
    job,
    put,
    reap,
    state,
    take,
    take_one,
)
from taskharbor.drivers.base import Enqueued, InspectableDriver, JobFilter, RequeueVerdict
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import State


def keyed(job_id: str, key: str = "k", **fields: Any) -> Message:
    return job(job_id, idempotency_key=key, **fields)


def _new(driver: InspectableDriver, message: Message) -> bool:
    """Whether enqueueing it makes a job."""
    return driver.enqueue([message])[0].created


def _finish(driver: InspectableDriver, end: State) -> None:
    """Bring the only job to its end."""
    if end is State.CANCELLED:
        driver.cancel(["a"])
        return
    lease = take_one(driver)
    if end is State.SUCCEEDED:
        apply(driver, Settlement.succeed("a", lease.fence, None))
    else:
        apply(driver, Settlement.die("a", lease.fence, error=None))


@in_one_shard
class KeyRules(Suite):
    def test_a_duplicate_finds_the_job_and_changes_nothing(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        driver.enqueue([keyed("a", digest=b"same")])
        before = get(driver)
        clock.advance(1)
        assert driver.enqueue(
            [keyed("b", digest=b"same", priority=9), keyed("c", digest=b"other")]
        ) == [Enqueued("a", created=False), Enqueued("a", created=False, same_request=False)]
        assert get(driver) == before
        assert (state(driver, "b"), state(driver, "c")) == (None, None)

    def test_the_same_key_twice_in_one_batch(self, driver: InspectableDriver) -> None:
        assert driver.enqueue([keyed("a"), keyed("b"), keyed("c", "other")]) == [
            Enqueued("a", created=True),
            Enqueued("a", created=False),
            Enqueued("c", created=True),
        ]

    def test_a_key_belongs_to_its_queue(self, driver: InspectableDriver) -> None:
        assert _new(driver, keyed("a", queue="q1"))
        assert _new(driver, keyed("b", queue="q2"))
        assert not _new(driver, keyed("c", queue="q1"))

    def test_the_id_is_looked_at_before_the_key(self, driver: InspectableDriver) -> None:
        driver.enqueue([keyed("a"), job("b")])
        assert driver.enqueue([keyed("b")]) == [Enqueued("b", created=False)]

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.DEAD, State.CANCELLED])
    def test_a_key_is_held_as_long_as_the_record(
        self, driver: InspectableDriver, clock: ManualClock, end: State
    ) -> None:
        driver.enqueue([keyed("a")])
        assert not _new(driver, keyed("b"))
        _finish(driver, end)
        assert not _new(driver, keyed("b"))
        clock.advance(3600 * 24 * 365)
        assert not _new(driver, keyed("b")), "the record is there until prune took it"
        while driver.prune(100):
            pass
        assert _new(driver, keyed("b"))

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.DEAD, State.CANCELLED])
    def test_a_key_until_terminal_is_free_after_the_end(
        self, driver: InspectableDriver, end: State
    ) -> None:
        driver.enqueue([keyed("a", key_until="terminal")])
        assert not _new(driver, keyed("b"))
        _finish(driver, end)
        assert _new(driver, keyed("b"))
        assert get(driver).idempotency_key == "k", "the record still says which key it had"

    def test_a_key_until_terminal_is_held_while_the_job_is_tried_again(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        driver.enqueue([keyed("a", key_until="terminal")])
        lease = take_one(driver)
        assert not _new(driver, keyed("b"))
        apply(driver, Settlement.retry("a", lease.fence, delay=5, error=None))
        assert not _new(driver, keyed("b"))
        clock.advance(5)
        driver.promote(10)
        take_one(driver)
        clock.advance(30)
        reap(driver)
        assert not _new(driver, keyed("b"))

    def test_a_key_until_terminal_is_free_when_the_job_expires(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        driver.enqueue([keyed("a", key_until="terminal", expires_in=5.0)])
        clock.advance(5)
        assert take(driver) == []
        assert _new(driver, keyed("b"))

    @pytest.mark.parametrize("end", [None, State.SUCCEEDED])
    def test_a_key_for_a_period_is_free_after_it_whatever_the_job_does(
        self, driver: InspectableDriver, clock: ManualClock, end: State | None
    ) -> None:
        driver.enqueue([keyed("a", key_until=10.0)])
        if end is not None:
            _finish(driver, end)
        clock.advance(9.75)
        assert not _new(driver, keyed("b"))
        clock.advance(0.25)
        assert _new(driver, keyed("b"))
        assert not _new(driver, keyed("c"))

    def test_retention_0_frees_the_key_with_the_record(self, driver: InspectableDriver) -> None:
        driver.enqueue([keyed("a", retention=FORGET_AT_ONCE)])
        _finish(driver, State.SUCCEEDED)
        assert _new(driver, keyed("b"))

    def test_delete_and_purge_free_the_key(self, driver: InspectableDriver) -> None:
        driver.enqueue([keyed("a"), keyed("b", "other")])
        driver.delete(["a"])
        assert _new(driver, keyed("c"))
        assert not _new(driver, keyed("d", "other"))
        driver.purge(JobFilter())
        assert _new(driver, keyed("e", "other"))
        assert _new(driver, keyed("f"))

    def test_deleting_a_job_leaves_the_key_to_its_next_holder(
        self, driver: InspectableDriver
    ) -> None:
        driver.enqueue([keyed("a", key_until="terminal")])
        _finish(driver, State.DEAD)
        driver.enqueue([keyed("b")])
        driver.delete(["a"])
        assert driver.enqueue([keyed("c")]) == [Enqueued("b", created=False)]

    def test_requeue_takes_the_key_back(self, driver: InspectableDriver) -> None:
        driver.enqueue([keyed("a", key_until="terminal")])
        _finish(driver, State.DEAD)
        assert driver.requeue(["a"]) == [RequeueVerdict.REQUEUED]
        assert driver.enqueue([keyed("b")]) == [Enqueued("a", created=False)]

    def test_requeue_answers_key_held_and_changes_nothing(self, driver: InspectableDriver) -> None:
        driver.enqueue([keyed("a", key_until="terminal")])
        _finish(driver, State.DEAD)
        driver.enqueue([keyed("b")])
        before = get(driver)
        assert driver.requeue(["a"]) == [RequeueVerdict.KEY_HELD]
        assert get(driver) == before
        driver.delete(["b"])
        assert driver.requeue(["a"]) == [RequeueVerdict.REQUEUED]

    def test_of_two_requeued_in_one_call_the_first_takes_the_key(
        self, driver: InspectableDriver
    ) -> None:
        for job_id in ("a", "b"):
            driver.enqueue([keyed(job_id, key_until="terminal")])
            lease = take_one(driver)
            apply(driver, Settlement.die(job_id, lease.fence, error=None))
        assert driver.requeue(["b", "a"]) == [RequeueVerdict.REQUEUED, RequeueVerdict.KEY_HELD]
        assert driver.enqueue([keyed("c")]) == [Enqueued("b", created=False)]

    def test_keys_of_any_printable_character(self, driver: InspectableDriver) -> None:
        odd = [
            "k" * 255,
            "it's",
            '"; DROP TABLE jobs; --',
            "naïve ☃ 🚀",
            "{}:*?[a]",
            "K",
            "k",
            "%s",
        ]
        for number, key in enumerate(odd):
            assert _new(driver, keyed(f"a{number}", key)), key
        for number, key in enumerate(odd):
            assert driver.enqueue([keyed("b", key)]) == [Enqueued(f"a{number}", created=False)]

    def test_keys_in_opposite_order_do_not_block_each_other(
        self, driver: InspectableDriver
    ) -> None:
        keys = [f"k{number}" for number in range(50)]
        driver.enqueue([keyed(f"a-{key}", key) for key in keys])
        backwards = driver.enqueue([keyed(f"b-{key}", key) for key in reversed(keys)])
        assert backwards == [Enqueued(f"a-{key}", created=False) for key in reversed(keys)]
        assert put(driver, "c")[0].created

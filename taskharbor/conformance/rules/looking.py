"""What operators see: jobs in pages, one job, queues and their counts."""

from __future__ import annotations

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    EVERYTHING,
    HOLDER,
    LEASE,
    QUEUE,
    Suite,
    all_pages,
    apply,
    get,
    ids,
    job,
    put,
    take,
    take_one,
)
from taskharbor.drivers.base import InspectableDriver, JobFilter, Renewal
from taskharbor.errors import InvalidCursor
from taskharbor.settlement import Settlement
from taskharbor.states import State


class LookRules(Suite):
    @in_one_shard
    def test_newest_enqueue_first(self, driver: InspectableDriver, clock: ManualClock) -> None:
        put(driver, "c", "a")
        put(driver, "b", priority=9)
        clock.advance(1)
        put(driver, "d", delay=60.0)
        take_one(driver)
        assert ids(all_pages(driver)) == ["d", "b", "a", "c"]

    def test_pages_say_all_but_the_big_fields(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        driver.extend(HOLDER, [Renewal("a", lease.fence, b"progress", b"saved")], LEASE)
        apply(driver, Settlement.succeed("a", lease.fence, b"result"))
        whole = get(driver)
        assert (whole.result, len(whole.history)) == (b"result", 1)
        (listed,) = driver.list_jobs(EVERYTHING).jobs
        assert (listed.body, listed.result, listed.history) == (b"", None, ())
        assert (listed.state, listed.progress, listed.saved) == (
            State.SUCCEEDED,
            b"progress",
            b"saved",
        )
        assert (listed.attempts, listed.finished_at) == (1, clock.now())

    @in_one_shard
    def test_filters_alone_and_together(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b", queue="q1", task="t1")
        put(driver, "c", "d", queue="q2", task="t1")
        put(driver, "e", "f", queue="q1", task="t2", delay=60.0)
        take_one(driver, queue="q1")
        expected = {
            JobFilter(queue="q1"): ["f", "e", "b", "a"],
            JobFilter(task="t1"): ["d", "c", "b", "a"],
            JobFilter(state=State.READY): ["d", "c", "b"],
            JobFilter(state=State.RUNNING, queue="q1", task="t1"): ["a"],
            JobFilter(state=State.SCHEDULED, task="t2"): ["f", "e"],
            JobFilter(state=State.DEAD): [],
            JobFilter(queue="q3"): [],
        }
        assert {where: ids(all_pages(driver, where, limit=1)) for where in expected} == expected

    @in_one_shard
    def test_pages_of_every_size_have_every_job_once(self, driver: InspectableDriver) -> None:
        put(driver, *(f"a{number}" for number in range(20)))
        expected = [f"a{number}" for number in reversed(range(20))]
        for limit in (1, 3, 10, 19, 20, 21, 500):
            assert ids(all_pages(driver, limit=limit)) == expected

    def test_pages_stay_right_while_jobs_come_and_go(self, driver: InspectableDriver) -> None:
        """Whatever exists throughout is seen exactly once."""
        put(driver, *(f"a{number}" for number in range(30)))
        seen: list[str] = []
        cursor = None
        for number in range(100):
            page = driver.list_jobs(EVERYTHING, cursor=cursor, limit=4)
            seen += ids(page.jobs)
            cursor = page.cursor
            if cursor is None:
                break
            put(driver, f"new{number}", priority=number)
            driver.delete([page.jobs[-1].id, f"a{number}"])
            take(driver, 1)
            driver.cancel([f"a{10 + number}"])
        assert len(seen) == len(set(seen))
        stayed = {found.id for found in all_pages(driver) if found.id.startswith("a")}
        assert stayed <= set(seen)

    @in_one_shard
    def test_pages_of_a_state_stay_right_while_jobs_change_state(
        self, driver: InspectableDriver
    ) -> None:
        put(driver, *(f"a{number}" for number in range(12)))
        first = driver.list_jobs(JobFilter(state=State.READY), limit=4)
        assert ids(first.jobs) == ["a11", "a10", "a9", "a8"]
        driver.cancel(["a8", "a7", "a0"])
        rest: list[str] = []
        cursor = first.cursor
        while cursor is not None:
            page = driver.list_jobs(JobFilter(state=State.READY), cursor=cursor, limit=4)
            rest += ids(page.jobs)
            cursor = page.cursor
        assert rest == [f"a{number}" for number in (6, 5, 4, 3, 2, 1)]

    def test_a_broken_cursor_is_refused(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        for cursor in ("", "not a cursor", "!", "a\x00b", "\x00", "\ud800", "☃", "' OR 1=1"):
            with pytest.raises(InvalidCursor):
                driver.list_jobs(EVERYTHING, cursor=cursor)

    def test_a_made_up_cursor_shows_nothing_that_is_not_there(
        self, driver: InspectableDriver
    ) -> None:
        """It may look like one that was handed out; then it stands for some place in the list."""
        put(driver, "a")
        for cursor in ("x", "0", "-1", "e30=", "9" * 400, "1e9", "١"):
            try:
                page = driver.list_jobs(EVERYTHING, cursor=cursor)
            except InvalidCursor:
                continue
            assert set(ids(page.jobs)) <= {"a"}

    def test_get_of_nothing_is_none(self, driver: InspectableDriver) -> None:
        assert driver.get("nobody") is None

    @in_one_shard
    def test_queues_count_every_state(self, driver: InspectableDriver, clock: ManualClock) -> None:
        put(driver, "a", "b", "c", "d", "e", queue="mail")
        put(driver, "f", queue="mail", delay=60.0)
        put(driver, "g", queue="Mail")
        first, second, _ = take(driver, 3, queue="mail")
        apply(
            driver,
            Settlement.succeed("a", first.fence, None),
            Settlement.die("b", second.fence, error=None),
        )
        driver.cancel(["d"])
        driver.pause("empty")
        seen = {queue.name: queue for queue in driver.queues()}
        assert list(seen) == ["Mail", "empty", "mail"], "in the order of their characters"
        assert seen["mail"].counts == dict.fromkeys(State, 1) | {State.BLOCKED: 0}
        assert seen["Mail"].counts == dict.fromkeys(State, 0) | {State.READY: 1}
        assert seen["empty"].counts == dict.fromkeys(State, 0)
        assert {name: queue.paused for name, queue in seen.items()} == {
            "Mail": False,
            "empty": True,
            "mail": False,
        }
        assert seen["empty"].oldest_ready_at is None
        assert seen["mail"].oldest_ready_at is not None

    def test_queue_names_are_sorted_by_character(self, driver: InspectableDriver) -> None:
        names = ["a", "B", "a-b", "a.b", "a:b", "aB", "ab", "a_b", "1", "b"]
        driver.enqueue([job(f"j{number}", queue=name) for number, name in enumerate(names)])
        assert [queue.name for queue in driver.queues()] == sorted(names)

    def test_an_emptied_queue_is_gone(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        driver.pause(QUEUE)
        driver.delete(["a"])
        assert [queue.paused for queue in driver.queues()] == [True]
        driver.resume(QUEUE)
        assert driver.queues() == []

    def test_counts_stay_right_over_a_whole_life(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", delay=5.0)
        seen = []

        def look() -> None:
            (queue,) = driver.queues()
            seen.append(
                [state.value for state, count in queue.counts.items() for _ in range(count)]
            )

        look()
        clock.advance(5)
        driver.promote(10)
        look()
        lease = take_one(driver)
        look()
        apply(driver, Settlement.die("a", lease.fence, error=None))
        look()
        driver.requeue(["a"], delay=5.0)
        look()
        driver.cancel(["a"])
        look()
        assert seen == [
            ["scheduled"],
            ["ready"],
            ["running"],
            ["dead"],
            ["scheduled"],
            ["cancelled"],
        ]

"""Many coroutines, few threads, and no wake-up that comes late."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import pytest

from taskharbor import TaskHarbor, testing
from taskharbor.drivers.base import InspectableDriver, Outcome
from taskharbor.errors import StoreUnavailable
from taskharbor.states import Reason, State
from taskharbor.waits import LONG_SECONDS, SHORT_SECONDS, THREADS, Waits
from tests.waiting import PATIENCE_SECONDS

DONE = Outcome(State.SUCCEEDED, Reason.SUCCEEDED, b"")
READY = Outcome(State.READY, Reason.ENQUEUED)


class Store:
    """Jobs that end when the test says so, and every question that was asked."""

    def __init__(self) -> None:
        self.over: dict[str, Outcome | None] = {}
        self.questions: list[tuple[int, float]] = []
        self.asking = 0
        self.most_asking = 0
        self._changed = threading.Condition()

    def end(self, *job_ids: str, outcome: Outcome | None = DONE) -> None:
        with self._changed:
            self.over.update(dict.fromkeys(job_ids, outcome))
            self._changed.notify_all()

    def was_asked(self, times: int) -> bool:
        return len(self.questions) >= times

    def has_questions(self, number: int) -> Callable[[], bool]:
        return lambda: self.asking == number

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        with self._changed:
            self.questions.append((len(job_ids), seconds))
            self.asking += 1
            self.most_asking = max(self.most_asking, self.asking)
            self._changed.wait_for(lambda: not self.over.keys().isdisjoint(job_ids), seconds)
            self.asking -= 1
            return [self.over.get(job_id, READY) for job_id in job_ids]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in threads
            await asyncio.sleep(0.005)


def waits_on(store: Store) -> Waits:
    driver = cast(InspectableDriver, store)
    return Waits(lambda: driver)


def test_a_wait_ends_when_its_job_does() -> None:
    store = Store()
    waits = waits_on(store)

    async def main() -> Any:
        waiting = asyncio.create_task(waits.wait("a", 30))
        await until(lambda: store.asking)
        store.end("a")
        return await waiting

    assert asyncio.run(main()) is DONE
    assert len(store.questions) == 1


def test_a_wait_for_a_job_that_is_gone_ends() -> None:
    store = Store()
    store.end("a", outcome=None)
    assert asyncio.run(waits_on(store).wait("a", 30)) is None


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> float:
    """The seconds of a long question, so many that nobody can wait for its end: a test that asks
    one ends its jobs."""
    monkeypatch.setattr("taskharbor.waits.LONG_SECONDS", 600.0)
    return 600.0


def test_a_wait_ends_in_its_time(endless: float) -> None:
    store = Store()
    assert asyncio.run(waits_on(store).wait("a", 0.02)) is None
    store.end("a")


def test_a_thousand_waits_take_a_few_threads_and_questions(
    endless: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.waits.SHORT_SECONDS", 1.0)
    store = Store()
    waits = waits_on(store)
    ids = [f"j{number}" for number in range(1000)]

    async def main() -> list[Any]:
        waiting = [asyncio.create_task(waits.wait(job_id, 30)) for job_id in ids]
        await until(lambda: sum(count for count, _ in store.questions) >= 1000)
        store.end(*ids)
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == [DONE] * 1000
    assert store.most_asking <= THREADS
    assert len(store.questions) < 30


def test_a_wait_that_comes_when_all_threads_are_busy_is_asked_for_soon(endless: float) -> None:
    store = Store()
    waits = waits_on(store)
    ids = [f"other {number}" for number in range(THREADS + 3)]

    async def main() -> None:
        others = []
        for number, job_id in enumerate(ids):
            others.append(asyncio.create_task(waits.wait(job_id, None)))
            await until(store.has_questions(min(number + 1, THREADS)))
        store.end("done already")
        assert await waits.wait("done already", PATIENCE_SECONDS) is DONE
        store.end(*ids)
        await asyncio.gather(*others)

    asyncio.run(main())
    assert {seconds for _, seconds in store.questions} == {endless, SHORT_SECONDS}


def test_short_questions_end_when_a_long_one_leaves_its_jobs_to_them() -> None:
    store = Store()
    waits = waits_on(store)

    async def main() -> None:
        others = []
        for number in range(THREADS):
            others.append(asyncio.create_task(waits.wait(f"never {number}", None)))
            await until(partial(store.was_asked, number + 1))
        await until(lambda: (2, LONG_SECONDS) in store.questions)
        assert store.asking < THREADS
        for each in others:
            each.cancel()

    asyncio.run(main())


def test_cancelled_waits_are_not_asked_for_again() -> None:
    store = Store()
    waits = waits_on(store)

    async def main() -> None:
        waiting = asyncio.create_task(waits.wait("never", None))
        await until(lambda: store.asking)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert waits._pool is not None
    waits._pool.shutdown()
    assert len(store.questions) == 1


def test_the_stores_errors_reach_those_who_wait() -> None:
    class Away(Store):
        def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
            raise StoreUnavailable("no connection")

    waits = waits_on(Away())
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            asyncio.run(waits.wait("a", 30))


def test_waits_of_several_event_loops_share_the_threads() -> None:
    app = TaskHarbor("memory://")
    add = app.task(name="add")(lambda x: x)
    got: list[int] = []
    with testing.memory(app) as jobs:
        results = [add.delay(number) for number in range(6)]
        threads = [
            threading.Thread(target=lambda each=each: got.append(asyncio.run(each.aget(30))))
            for each in results
        ]
        for thread in threads:
            thread.start()
        jobs.drain()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert sorted(got) == list(range(6))


def test_closing_ends_waits_as_if_their_time_were_over() -> None:
    store = Store()
    waits = waits_on(store)

    async def main() -> Any:
        waiting = asyncio.create_task(waits.wait("never", None))
        await until(lambda: store.asking)
        waits.close()
        return await waiting

    assert asyncio.run(main()) is None

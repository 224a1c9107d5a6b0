"""The helpers for users' own tests."""

import asyncio
from typing import Any

import pytest

from taskharbor import Snooze, TaskFailed, TaskHarbor, current_job, testing
from taskharbor.errors import ConfigurationError, EncodeError
from taskharbor.states import Move, State
from taskharbor.testing import TooManyJobs


@pytest.fixture
def app() -> TaskHarbor:
    return TaskHarbor("memory://")


def test_memory_runs_nothing_before_it_is_told(app: TaskHarbor) -> None:
    @app.task
    def work() -> int:
        return 1

    with testing.memory(app) as jobs:
        result = work.delay()
        assert not result.ready()
        [ran] = jobs.drain()
        assert (ran.job_id, ran.task, ran.attempt) == (result.id, work.name, 1)
        assert ran.settlement.move is Move.SUCCEED
        assert result.get() == 1
        assert jobs.drain() == []


def test_the_app_has_its_own_store_back_afterwards(app: TaskHarbor) -> None:
    own = app.driver
    with testing.memory(app):
        assert app.driver is not own
        with testing.inline(app):
            pass
        assert app.driver is not own
    assert app.driver is own


def test_time_stands_still_until_the_test_moves_it(app: TaskHarbor) -> None:
    @app.task(max_attempts=2)
    def work() -> int:
        if current_job().attempt == 1:
            raise ValueError
        return current_job().attempt

    with testing.memory(app) as jobs:
        result = work.apply_async(countdown=60)
        assert jobs.drain() == []
        assert jobs.advance(59.9) == []
        assert len(jobs.advance(0.1)) == 1
        assert result.state == "scheduled"
        jobs.run_all()
        assert result.get() == 2


def test_jobs_that_jobs_enqueue_run_as_well(app: TaskHarbor) -> None:
    @app.task(queue="other")
    def inner(number: int) -> int:
        return number

    @app.task
    def outer() -> list[str]:
        return [inner.delay(number).id for number in range(3)]

    with testing.memory(app) as jobs:
        result = outer.delay()
        assert [ran.task for ran in jobs.drain()] == [outer.name] + [inner.name] * 3
        assert [app.result(job_id).get() for job_id in result.get()] == [0, 1, 2]


def test_inline_runs_a_call_when_it_is_enqueued(app: TaskHarbor) -> None:
    attempts: list[int] = []

    @app.task(max_attempts=3)
    def work(x: Any) -> Any:
        attempts.append(current_job().attempt)
        if current_job().attempt < 3:
            raise ValueError
        return x

    with testing.inline(app):
        assert work.delay((1, {2})).get() == (1, {2})
        assert work.apply_async((1,), countdown=3600).get() == 1
        assert [r.get() for r in app.enqueue_many([work.s(1), work.s(2)])] == [1, 2]
        with pytest.raises(EncodeError):
            work.delay(object())
    assert sorted(attempts) == [1] * 4 + [2] * 4 + [3] * 4


def test_inline_can_raise_where_the_call_is_made(app: TaskHarbor) -> None:
    @app.task(max_attempts=1)
    def broken() -> None:
        raise ValueError("no")

    with testing.inline(app):
        assert broken.delay().failed()
    with testing.inline(app, raise_errors=True), pytest.raises(ValueError) as raised:
        broken.delay()
    assert isinstance(raised.value, TaskFailed)


def test_async_tasks_run_inside_async_tests(app: TaskHarbor) -> None:
    @app.task
    async def work(x: int) -> int:
        await asyncio.sleep(0)
        return x

    async def main() -> list[int]:
        with testing.inline(app):
            return [work.delay(1).get(), (await work.adelay(2)).get(), await work.delay(3).aget()]

    assert asyncio.run(main()) == [1, 2, 3]


def test_drain_works_on_any_store(app: TaskHarbor) -> None:
    @app.task
    def work() -> int:
        return 1

    result = work.delay()
    assert len(testing.drain(app)) == 1
    assert result.get() == 1


def test_paused_queues_are_left_alone(app: TaskHarbor) -> None:
    work = app.task(name="work")(lambda: None)
    with testing.memory(app) as jobs:
        work.delay()
        app.driver.pause("default")
        assert jobs.drain() == []
        app.driver.resume("default")
        assert len(jobs.drain()) == 1


def test_a_drain_without_end_is_stopped(app: TaskHarbor) -> None:
    @app.task
    def again() -> None:
        again.delay()

    @app.task
    def not_now() -> None:
        raise Snooze(1)

    with testing.memory(app) as jobs:
        again.delay()
        with pytest.raises(TooManyJobs, match="after 50 attempts"):
            jobs.drain(max_jobs=50)
        assert app.driver.queues()[0].counts[State.RUNNING] == 0
    with testing.memory(app) as jobs:
        not_now.delay()
        with pytest.raises(TooManyJobs):
            jobs.run_all(max_jobs=50)


def test_a_store_nobody_knows_is_an_error_of_its_use() -> None:
    app = TaskHarbor("nowhere://")
    with testing.memory(app) as jobs:
        assert jobs.drain() == []
    with pytest.raises(ConfigurationError):
        testing.drain(app)

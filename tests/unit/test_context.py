"""``current_job()`` inside a task, in a task that is called directly, and elsewhere."""

import asyncio
import threading
from contextvars import copy_context
from typing import Any

import pytest

from taskharbor import TaskHarbor, current_job, testing
from taskharbor.control import Retry, Snooze
from taskharbor.errors import EncodeError, InvalidJob, NoCurrentJob


@pytest.fixture
def app() -> TaskHarbor:
    return TaskHarbor("memory://")


def test_outside_of_a_task_there_is_no_current_job() -> None:
    with pytest.raises(NoCurrentJob, match="call it from a task's function"):
        current_job()


def test_a_task_called_directly_has_a_detached_job(app: TaskHarbor) -> None:
    @app.task(queue="mail")
    def work() -> tuple[Any, ...]:
        job = current_job()
        job.check()
        job.progress(0.5)
        job.save([1, 2])
        return job.id, job.task, job.queue, job.attempt, job.deadline, job.cancelled, job.saved

    assert work() == ("detached", work.name, "mail", 1, None, False, [1, 2])
    with pytest.raises(NoCurrentJob):
        current_job()


def test_an_async_task_called_directly_has_one_too(app: TaskHarbor) -> None:
    @app.task
    async def work() -> str:
        await asyncio.sleep(0)
        return current_job().task

    async def main() -> list[str]:
        return list(await asyncio.gather(work(), work()))

    assert asyncio.run(main()) == [work.name] * 2


def test_a_task_that_calls_another_one_directly_stays_the_current_job(app: TaskHarbor) -> None:
    @app.task
    def inner() -> str:
        return current_job().task

    @app.task
    async def inner_async() -> str:
        return current_job().task

    @app.task
    def outer() -> str:
        return inner()

    @app.task
    async def outer_async() -> str:
        return await inner_async()

    with testing.inline(app):
        assert outer.delay().get() == outer.name
        assert outer_async.delay().get() == outer_async.name


def test_a_job_run_inline_inside_another_is_the_current_one_meanwhile(app: TaskHarbor) -> None:
    @app.task
    def inner() -> str:
        return current_job().task

    @app.task
    def outer() -> list[str]:
        return [current_job().task, inner.delay().get(), current_job().task]

    with testing.inline(app):
        assert outer.delay().get() == [outer.name, inner.name, outer.name]


def test_a_thread_sees_the_job_if_it_is_given_the_context(app: TaskHarbor) -> None:
    @app.task
    def work() -> str:
        seen: list[str] = []
        context = copy_context()
        thread = threading.Thread(
            target=context.run, args=(lambda: seen.append(current_job().task),)
        )
        thread.start()
        thread.join()
        return seen[0]

    assert work() == work.name


@pytest.mark.parametrize("fraction", [float("nan"), float("inf")])
def test_progress_is_a_fraction(app: TaskHarbor, fraction: float) -> None:
    @app.task
    def work() -> None:
        current_job().progress(fraction)

    with pytest.raises(ValueError, match="use a fraction from 0 to 1"):
        work()


def test_progress_is_kept_inside_its_range_and_its_text_clean(app: TaskHarbor) -> None:
    @app.task
    def work(fraction: float) -> None:
        current_job().progress(fraction, "nul \0 lone \ud800")

    with testing.inline(app):
        assert work.delay(7.5).info().progress == (1.0, "nul \\x00 lone \\ud800")
        assert work.delay(-1).info().progress == (0.0, "nul \\x00 lone \\ud800")


def test_a_saved_value_must_be_able_to_travel(app: TaskHarbor) -> None:
    @app.task(max_result_bytes=100)
    def work(size: int) -> None:
        current_job().save("x" * size)

    with testing.inline(app, raise_errors=True):
        work.delay(90)
        with pytest.raises(EncodeError):
            _detached_save()
        result = work.using(max_attempts=1)
        with pytest.raises(Exception, match="PayloadTooLarge"):
            result.delay(101)


def _detached_save() -> None:
    app = TaskHarbor("memory://")

    @app.task
    def save() -> None:
        current_job().save(object())

    save()


@pytest.mark.parametrize("delay", [-1, float("nan"), "5", True, None])
def test_a_task_cannot_be_put_off_by_a_time_that_is_none(delay: Any) -> None:
    with pytest.raises(InvalidJob, match=r"Snooze\(\) was given"):
        Snooze(delay)
    if delay is not None:
        with pytest.raises(InvalidJob, match=r"Retry\(delay=\) was given"):
            Retry(delay=delay)

"""The way back to a job: its value, its state, its end."""

import asyncio
import copy
import gc
import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from taskharbor import (
    Cancel,
    JobCancelled,
    JobNotFound,
    ResultNotStored,
    ResultTimeout,
    State,
    TaskFailed,
    TaskHarbor,
    current_job,
    testing,
)
from taskharbor.drivers.base import CancelVerdict
from taskharbor.errors import (
    ConfigurationError,
    InvalidJob,
    KeyHeld,
    LeaseMismatch,
    NotInDeadLetterQueue,
)
from taskharbor.result import AsyncResult
from taskharbor.states import Reason
from taskharbor.testing import Jobs
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def app() -> TaskHarbor:
    return TaskHarbor("memory://", name="results")


@pytest.fixture
def jobs(app: TaskHarbor) -> Iterator[Jobs]:
    with testing.memory(app) as jobs:
        yield jobs


@pytest.fixture
def add(app: TaskHarbor) -> Any:
    @app.task(name="add", max_attempts=1)
    def add(x: int, y: int) -> int:
        return x + y

    return add


def failing(app: TaskHarbor, error: BaseException, **options: Any) -> Any:
    def fail() -> None:
        raise error

    return app.task(name="failing", max_attempts=1, **options)(fail)


# --- get ------------------------------------------------------------------------------------------


def test_get_gives_what_the_task_returned(jobs: Jobs, add: Any) -> None:
    result = add.delay(1, 2)
    jobs.drain()
    assert result.get() == 3
    assert result.get(timeout=0) == 3


def test_get_waits_no_longer_than_it_is_told(jobs: Jobs, add: Any) -> None:
    result = add.delay(1, 2)
    before = time.monotonic()
    with pytest.raises(ResultTimeout, match=f"job {result.id} is still ready"):
        result.get(timeout=0.05)
    assert time.monotonic() - before >= 0.05
    with pytest.raises(TimeoutError):
        result.get(timeout=0)
    with pytest.raises(ResultTimeout):
        result.wait(timeout=-1)


@pytest.mark.parametrize("timeout", [float("nan"), "5", True])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(add: Any, timeout: Any) -> None:
    result = add.delay(1, 2)
    for ask in (result.get, result.wait, lambda timeout: asyncio.run(result.aget(timeout))):
        with pytest.raises(InvalidJob, match=r"timeout is .*use a number of seconds"):
            ask(timeout)


def test_an_infinite_timeout_waits_as_none_does(jobs: Jobs, add: Any) -> None:
    result = add.delay(1, 2)
    jobs.drain()
    assert result.get(timeout=float("inf")) == 3
    assert asyncio.run(result.aget(timeout=float("inf"))) == 3


def test_get_wakes_up_when_the_job_ends(jobs: Jobs, add: Any) -> None:
    result = add.delay(1, 2)
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(result.get(timeout=90)))
    thread.start()
    jobs.drain()
    thread.join(PATIENCE_SECONDS)
    assert got == [3]


def test_get_of_a_job_that_never_was_raises_and_never_hangs(jobs: Jobs, app: TaskHarbor) -> None:
    result = app.result("nobody")
    for ask in (result.get, result.wait, result.ready, result.info, result.cancel):
        with pytest.raises(JobNotFound, match="there is no job nobody"):
            ask()
    with pytest.raises(JobNotFound):
        _ = result.state
    with pytest.raises(JobNotFound):
        asyncio.run(result.aget())


def test_get_of_a_job_deleted_meanwhile_raises_and_never_hangs(jobs: Jobs, add: Any) -> None:
    result = add.delay(1, 2)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            result.get()
        except JobNotFound as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert result.forget()
    thread.join(PATIENCE_SECONDS)
    assert raised


# --- failure --------------------------------------------------------------------------------------


def test_a_dead_job_raises_with_the_remote_traceback(jobs: Jobs, app: TaskHarbor) -> None:
    result = failing(app, ValueError("too small")).delay()
    jobs.drain()
    with pytest.raises(TaskFailed) as raised:
        result.get()
    error = raised.value
    assert str(error) == f"job {result.id} is dead: ValueError: too small"
    assert error.error_type == "ValueError"
    assert error.job_id == result.id
    assert "raise error" in error.remote_traceback
    assert error.remote_traceback in str(error.__cause__)
    assert result.failed()
    assert not result.successful()


@pytest.mark.parametrize(
    ("error", "caught"),
    [
        (ValueError("x"), ValueError),
        (KeyError("x"), KeyError),
        (FileNotFoundError(2, "no file"), OSError),
        (ZeroDivisionError(), ArithmeticError),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), UnicodeError),
        (ImportError("x", name="y"), ImportError),
        (SyntaxError("x"), SyntaxError),
        (ExceptionGroup("x", [ValueError()]), TaskFailed),
        (StopIteration(), TaskFailed),
        (SystemExit(1), TaskFailed),
        (KeyboardInterrupt(), TaskFailed),
        (pickle.PicklingError("x"), TaskFailed),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.__name__,
)
def test_a_failure_is_caught_as_the_builtin_type_it_was(
    jobs: Jobs, app: TaskHarbor, error: BaseException, caught: type[Exception]
) -> None:
    result = failing(app, error).delay()
    jobs.drain()
    with pytest.raises(caught) as raised:
        result.get()
    assert isinstance(raised.value, TaskFailed)
    assert isinstance(raised.value, Exception)
    assert not isinstance(raised.value, StopIteration | SystemExit | KeyboardInterrupt)
    assert str(raised.value).startswith(f"job {result.id} is dead: ")


@pytest.mark.parametrize("error", [KeyError("x"), OSError(2, "no file"), LookupError("y")])
def test_errors_about_jobs_can_be_pickled_and_copied(
    jobs: Jobs, app: TaskHarbor, error: Exception
) -> None:
    result = failing(app, error).delay()
    jobs.drain()
    with pytest.raises(TaskFailed) as raised:
        result.get()
    lease = LeaseMismatch("not yours", job_id="j")
    for original in (raised.value, lease):
        for again in (pickle.loads(pickle.dumps(original)), copy.copy(original)):
            assert type(again) is type(original)
            assert str(again) == str(original)
            assert vars(again) == vars(original)


def test_a_job_rejected_for_another_reason_names_it(jobs: Jobs, app: TaskHarbor) -> None:
    @app.task
    def unencodable() -> Any:
        return object()

    result = unencodable.delay()
    jobs.drain()
    with pytest.raises(TaskFailed, match=r"dead \(unencodable_result\)"):
        result.get()


def test_a_cancelled_job_raises(jobs: Jobs, app: TaskHarbor) -> None:
    result = failing(app, Cancel("not needed")).delay()
    jobs.drain()
    with pytest.raises(JobCancelled, match=r"cancelled \(task\)"):
        result.get()
    assert result.ready()
    assert result.wait() is State.CANCELLED


def test_a_result_that_is_not_kept_says_so(jobs: Jobs, app: TaskHarbor) -> None:
    @app.task(store_result=False)
    def quiet() -> int:
        return 1

    result = quiet.delay()
    jobs.drain()
    with pytest.raises(ResultNotStored, match="store_result=False"):
        result.get()
    assert result.successful()


def test_a_job_kept_for_no_time_is_gone_when_it_ends(jobs: Jobs, app: TaskHarbor) -> None:
    @app.task(keep_succeeded=0)
    def quiet() -> int:
        return 1

    result = quiet.delay()
    jobs.drain()
    with pytest.raises(JobNotFound, match="keep_succeeded"):
        result.get()


# --- state, info, cancel --------------------------------------------------------------------------


def test_state_follows_the_job(jobs: Jobs, add: Any) -> None:
    result = add.apply_async((1, 2), countdown=10)
    assert result.state == "scheduled"
    assert not result.ready()
    jobs.advance(10)
    assert result.state == "succeeded"
    assert result.ready()
    assert result.successful()


def test_info_tells_all_about_a_job(jobs: Jobs, app: TaskHarbor) -> None:
    @app.task(max_attempts=2, queue="mail", timeout=5)
    def send(to: str, *, template: str) -> None:
        current_job().progress(0.25, "a quarter")
        raise ValueError(to)

    result = send.using(headers={"h": 1}, idempotency_key="k").delay("a@b.c", template="hi")
    jobs.run_all()
    info = result.info()
    assert (info.id, info.task, info.queue) == (result.id, send.name, "mail")
    assert (info.state, info.reason) == (State.DEAD, Reason.RAISED)
    assert (info.attempt, info.max_attempts, info.losses) == (2, 2, 0)
    assert (info.args, info.kwargs, info.headers) == (["a@b.c"], {"template": "hi"}, {"h": 1})
    assert info.progress == (0.25, "a quarter")
    assert (info.idempotency_key, info.flow, info.awaits) == ("k", None, None)
    assert info.error is not None
    assert info.error.message == "a@b.c"
    assert [attempt.number for attempt in info.attempts] == [1, 2]
    assert [attempt.reason for attempt in info.attempts] == [Reason.RAISED, Reason.RAISED]
    assert info.attempts[0].fence < info.attempts[1].fence


def test_a_dead_job_is_requeued(jobs: Jobs, app: TaskHarbor) -> None:
    open_now: list[bool] = []

    @app.task(max_attempts=2, retry_on=OSError)
    def knock() -> str:
        if not open_now:
            raise ValueError("closed")
        return "come in"

    result = knock.delay()
    with pytest.raises(NotInDeadLetterQueue, match="not dead"):
        result.requeue()
    jobs.drain()
    open_now.append(True)
    result.requeue(delay=60)
    assert jobs.drain() == []
    jobs.advance(60)
    assert (result.get(), result.info().attempt) == ("come in", 1)


def test_a_dead_job_whose_key_another_one_has_is_not_requeued(jobs: Jobs, app: TaskHarbor) -> None:
    @app.task(max_attempts=1)
    def fail() -> None:
        raise ValueError

    keyed = fail.using(idempotency_key="k", key_until="terminal")
    first = keyed.delay()
    jobs.drain()
    keyed.delay()
    with pytest.raises(KeyHeld, match="see to that one"):
        first.requeue()
    with pytest.raises(InvalidJob, match="delay"):
        first.requeue(delay=-1)
    with pytest.raises(JobNotFound):
        app.result("nobody").requeue()


def test_cancel_stops_a_waiting_job(jobs: Jobs, add: Any) -> None:
    result = add.delay(1, 2)
    assert result.cancel() is CancelVerdict.CANCELLED
    assert jobs.drain() == []
    with pytest.raises(JobCancelled, match="operator"):
        result.get()
    assert result.revoke() is CancelVerdict.FINISHED


def test_cancel_reaches_a_running_job(jobs: Jobs, app: TaskHarbor) -> None:
    seen: list[bool] = []

    @app.task
    def long() -> None:
        seen.append(current_job().cancelled)
        assert app.result(current_job().id).cancel() is CancelVerdict.REQUESTED
        seen.append(current_job().cancelled)
        current_job().check()

    result = long.delay()
    jobs.drain()
    assert seen == [False, True]
    assert result.state is State.CANCELLED


def test_forget_deletes_a_job_unless_it_runs(jobs: Jobs, app: TaskHarbor) -> None:
    @app.task
    def forget_me() -> bool:
        return app.result(current_job().id).forget()

    result = forget_me.delay()
    jobs.drain()
    assert result.get() is False
    assert result.forget() is True
    assert result.forget() is False
    with pytest.raises(JobNotFound):
        result.get()


# --- a value to pass around -----------------------------------------------------------------------


def test_results_of_one_job_are_equal(app: TaskHarbor) -> None:
    other = TaskHarbor("memory://", name="other")
    assert app.result("a") == app.result("a")
    assert len({app.result("a"), app.result("a"), app.result("b")}) == 2
    assert app.result("a") != app.result("b")
    assert app.result("a") != other.result("a")
    assert app.result("a") != "a"


def test_a_result_pickles_without_the_url_of_its_store(app: TaskHarbor) -> None:
    data = pickle.dumps(app.result("a"))
    assert b"memory" not in data
    again = pickle.loads(data)
    assert again == app.result("a")
    assert again.app.name == "results"


def test_a_result_unpickled_where_its_app_is_unknown_says_what_to_do() -> None:
    app = TaskHarbor("memory://", name="short-lived")
    data = pickle.dumps(app.result("a"))
    del app
    gc.collect()
    with pytest.raises(ConfigurationError, match="0 stores under the app name 'short-lived'"):
        pickle.loads(data)


# --- async ----------------------------------------------------------------------------------------


def test_async_callers_enqueue_and_wait(jobs: Jobs, add: Any) -> None:
    async def main() -> int:
        result = await add.adelay(1, 2)
        waiting = asyncio.create_task(result.aget(timeout=90))
        await asyncio.sleep(0)
        jobs.drain()
        value: int = await waiting
        return value

    assert asyncio.run(main()) == 3


def test_more_async_waits_than_threads_all_end(jobs: Jobs, add: Any) -> None:
    async def main() -> list[int]:
        results = await asyncio.gather(*(add.adelay(n, 0) for n in range(40)))
        waits = [asyncio.create_task(result.aget(timeout=90)) for result in results]
        await asyncio.sleep(0)
        jobs.drain()
        return list(await asyncio.gather(*waits))

    before = threading.active_count()
    assert asyncio.run(main()) == list(range(40))
    assert threading.active_count() - before <= 16


def test_an_async_wait_ends_in_time(jobs: Jobs, add: Any) -> None:
    result = add.delay(1, 2)
    with pytest.raises(ResultTimeout):
        asyncio.run(result.aget(timeout=0.02))


def test_a_cancelled_async_wait_does_not_hold_up_the_end_of_the_program(
    jobs: Jobs, add: Any, app: TaskHarbor
) -> None:
    async def main(result: AsyncResult[int]) -> None:
        waiting = asyncio.create_task(result.aget())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    before = time.monotonic()
    asyncio.run(main(add.delay(1, 2)))
    app.close()
    assert time.monotonic() - before < PATIENCE_SECONDS

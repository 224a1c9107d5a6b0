"""The app: where its store is, how calls reach it, what a fork and a lost reply do."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from traceback import format_exception
from typing import Any, cast

import pytest

from taskharbor import AsyncResult, Signature, TaskHarbor, group, testing
from taskharbor.clock import ManualClock
from taskharbor.drivers.base import Enqueued, InspectableDriver
from taskharbor.drivers.registry import connect
from taskharbor.errors import (
    ConfigurationError,
    EncodeError,
    InvalidCall,
    StoreFull,
    StoreUnavailable,
    UnknownDriver,
)
from taskharbor.message import Message
from taskharbor.middleware import Enqueue, EnqueueRequest, Middleware


@pytest.fixture
def app() -> Iterator[TaskHarbor]:
    app = TaskHarbor("memory://")
    yield app
    app.close()


def add_task(app: TaskHarbor) -> Any:
    def add(x: Any, y: int = 0) -> Any:
        return x + y

    return app.task(name="add")(add)


class Flaky:
    """A memory driver whose enqueues fail by plan: ``before`` the store has the batch, or
    ``after``, when only the reply is lost."""

    def __init__(self, *plan: str | Exception) -> None:
        self.inner: InspectableDriver = connect("memory://", clock=ManualClock())
        self.plan = list(plan)
        self.sent: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        self.sent.append([message.id for message in batch])
        step = self.plan.pop(0) if self.plan else ""
        if isinstance(step, Exception):
            raise step
        if step == "before":
            raise StoreUnavailable("no connection")
        answers = self.inner.enqueue(batch)
        if step == "after":
            raise StoreUnavailable("the connection broke")
        return answers


# --- the store ------------------------------------------------------------------------------------


def test_the_url_comes_from_the_argument_then_the_environment_then_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TASKHARBOR_URL", raising=False)
    assert TaskHarbor().url == "sqlite:///taskharbor.db"
    monkeypatch.setenv("TASKHARBOR_URL", "memory://env")
    assert TaskHarbor().url == "memory://env"
    assert TaskHarbor("memory://here").url == "memory://here"


def test_nothing_is_opened_before_it_is_needed() -> None:
    app = TaskHarbor("nowhere://at-all")
    task = add_task(app)
    result = app.result("j")
    assert task(1, 2) == 3
    with pytest.raises(UnknownDriver):
        task.delay(1)
    with pytest.raises(UnknownDriver):
        _ = result.state


@pytest.mark.parametrize("password", ["se[cret", "se]cret", "[secret]", "secret\u2100"])
def test_a_url_that_python_can_not_split_is_refused_without_its_password(password: str) -> None:
    with pytest.raises(ConfigurationError, match="can't be read") as refused:
        connect(f"postgresql://ann:{password}@host/shop")
    text = "".join(format_exception(refused.value))
    assert "cret" not in text


def test_threads_share_one_connection(app: TaskHarbor) -> None:
    drivers: list[InspectableDriver] = []
    threads = [threading.Thread(target=lambda: drivers.append(app.driver)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, drivers))) == 1


def test_a_closed_app_connects_again_when_it_is_used(app: TaskHarbor) -> None:
    first = app.driver
    app.close()
    app.close()
    assert app.driver is not first


def test_a_forked_child_connects_anew_and_leaves_the_parents_connection_alone(
    app: TaskHarbor,
) -> None:
    closed: list[int] = []
    parents = app.driver
    parents.close = lambda: closed.append(os.getpid())  # type: ignore[method-assign]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        fresh = app.driver is not parents and not app._lock.locked()
        add_task(app).delay(1)
        os.write(write, b"fresh" if fresh and not closed else b"shared")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(read, 10) == b"fresh"
    assert app.driver is parents
    del parents.close


def test_child_start_hooks_are_kept_in_order(app: TaskHarbor) -> None:
    @app.child_start
    def first() -> None: ...

    @app.child_start
    def second() -> None: ...

    assert app.child_start_hooks == [first, second]


# --- enqueueing -----------------------------------------------------------------------------------


def test_an_enqueue_whose_reply_was_lost_is_sent_again_and_stays_one_job(
    app: TaskHarbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.defaults.ENQUEUE_RETRY_SECONDS", (0.0, 0.0))
    flaky = Flaky("after", "before")
    task = add_task(app)
    with app.connected_to(flaky):
        result = task.delay(1)
    assert result.created
    assert flaky.sent == [[result.id]] * 3
    assert flaky.queues()[0].counts["ready"] == 1


def test_an_unreachable_store_is_tried_a_bounded_number_of_times(
    app: TaskHarbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.defaults.ENQUEUE_RETRY_SECONDS", (0.0, 0.0))
    flaky = Flaky(*["before"] * 9)
    task = add_task(app)
    with app.connected_to(flaky), pytest.raises(StoreUnavailable):
        task.delay(1)
    assert len(flaky.sent) == 3


def test_other_errors_of_the_store_are_not_tried_again(app: TaskHarbor) -> None:
    flaky = Flaky(StoreFull("no room"))
    task = add_task(app)
    with app.connected_to(flaky), pytest.raises(StoreFull):
        task.delay(1)
    assert len(flaky.sent) == 1


def test_inside_a_callers_transaction_nothing_is_sent_twice(app: TaskHarbor) -> None:
    flaky = Flaky("before")
    task = add_task(app)
    with app.connected_to(flaky), pytest.raises(StoreUnavailable):
        task.apply_async((1,), connection=object())
    assert len(flaky.sent) == 1


def test_many_calls_take_one_round_trip_a_batch_and_keep_their_order(
    app: TaskHarbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.defaults.BATCH", 100)
    flaky = Flaky()
    task = add_task(app)
    with app.connected_to(flaky):
        results = app.enqueue_many(task.s(number) for number in range(250))
        assert [result.info().args for result in results] == [[number] for number in range(250)]
    assert [len(batch) for batch in flaky.sent] == [100, 100, 50]
    assert len({result.id for result in results}) == 250


def test_many_calls_may_be_of_different_tasks_and_options(app: TaskHarbor) -> None:
    add = add_task(app)

    @app.task(queue="mail")
    def send(to: str) -> str:
        return to

    calls: list[Signature[Any]] = [add.s(1), send.s("a"), add.using(queue="bulk").s(2), send.s("b")]
    with testing.memory(app) as jobs:
        results = app.enqueue_many(calls)
        assert [result.info().queue for result in results] == ["default", "mail", "bulk", "mail"]
        jobs.drain()
        assert [result.get() for result in results] == [1, "a", 2, "b"]
    assert app.enqueue_many([]) == []


def test_a_bad_call_among_many_refuses_its_batch_and_says_what_is_stored(
    app: TaskHarbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.defaults.BATCH", 10)
    task = add_task(app)
    calls = [task.s(number) for number in range(15)] + [task.s(object())]
    with testing.memory(app) as jobs:
        with pytest.raises(EncodeError) as raised:
            app.enqueue_many(calls)
        assert raised.value.__notes__ == ["The 10 jobs before this batch are enqueued."]
        assert len(jobs.drain()) == 10


class Passing(Middleware):
    """Sees calls enqueued, and lets them."""

    def around_enqueue(
        self, requests: list[EnqueueRequest], enqueue: Enqueue
    ) -> list[AsyncResult[Any]]:
        return enqueue(requests)


@pytest.mark.parametrize("middleware", [[], [Passing()]], ids=["bare", "middleware"])
def test_a_batch_is_of_plain_calls(middleware: list[Middleware]) -> None:
    app = TaskHarbor("memory://", middleware=middleware)
    task = add_task(app)
    flows: list[Any] = [task.s(1) | task.s(), task.s(1).link(task.s()), group(task.s(1))]
    with testing.memory(app) as jobs:
        for flow in flows:
            with pytest.raises(InvalidCall, match=r"is a flow .* send it by itself"):
                app.enqueue_many([task.s(1), flow])
        for call in (1, None, "demo.add", task):
            with pytest.raises(InvalidCall, match=r"write it as task\.s"):
                app.enqueue_many([cast(Any, call)])
        assert jobs.drain() == []


def test_async_callers_enqueue_many(app: TaskHarbor) -> None:
    task = add_task(app)
    with testing.memory(app) as jobs:
        results = asyncio.run(app.aenqueue_many([task.s(1), task.s(2)]))
        jobs.drain()
        assert [result.get() for result in results] == [1, 2]


# --- idempotency ----------------------------------------------------------------------------------


def test_a_key_makes_one_job_and_tells_a_replay_from_a_conflict(app: TaskHarbor) -> None:
    task = add_task(app)
    with testing.memory(app):
        keyed = task.using(idempotency_key="order-7")
        first, replay, conflict = keyed.delay(1), keyed.delay(1), keyed.delay(2)
        elsewhere = keyed.using(queue="other").delay(1)
        assert first == replay == conflict != elsewhere
        assert [each.created for each in (first, replay, conflict)] == [True, False, False]
        assert [each.same_request for each in (first, replay, conflict)] == [True, True, False]


def test_a_key_is_free_again_when_it_was_given_until_the_end(app: TaskHarbor) -> None:
    task = add_task(app)
    with testing.memory(app) as jobs:
        keyed = task.using(idempotency_key="order-7", key_until="terminal")
        first = keyed.delay(1)
        jobs.drain()
        assert keyed.delay(1) != first


def test_an_id_of_the_callers_own_makes_one_job(app: TaskHarbor) -> None:
    task = add_task(app)
    with testing.memory(app):
        first = task.apply_async((1,), job_id="order-7")
        again = task.apply_async((2,), job_id="order-7")
        assert (first.id, first.created) == ("order-7", True)
        assert (again.created, again.same_request) == (False, False)


# --- calls written down ---------------------------------------------------------------------------


def test_a_signature_is_a_call_to_be_made_later(app: TaskHarbor) -> None:
    task = add_task(app)
    call = task.s(1, y=2)
    assert repr(call) == "add.s(1, y=2)"
    assert call == task.s(1, y=2) != task.s(1, y=3)
    assert call != task.si(1, y=2)
    with testing.inline(app):
        assert call.delay().get() == 3
        assert call.apply_async(countdown=5).get() == 3
        assert task.s(y=2).delay(5).get() == 7
        assert call.set(queue="q").delay().info().queue == "q"
    assert call.task.call_options == {}


def test_a_signature_can_be_partial_and_takes_what_comes_first(app: TaskHarbor) -> None:
    task = add_task(app)
    partial = task.s(2)
    assert partial.clone(1, y=3) == task.s(1, 2, y=3)
    assert task.si(2).clone(1, y=3) == task.si(2)

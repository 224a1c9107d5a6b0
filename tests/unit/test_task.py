"""Tasks: made by a decorator, still functions, enqueued with options that are checked at once."""

import asyncio
import inspect
import pickle
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from taskharbor import (
    AsyncTask,
    Exponential,
    Fixed,
    Reject,
    Retry,
    SyncTask,
    TaskHarbor,
    current_job,
    testing,
)
from taskharbor.errors import (
    ConfigurationError,
    EncodeError,
    InvalidCall,
    InvalidJob,
    PayloadTooLarge,
)
from taskharbor.message import Message, Retention, read_body


@pytest.fixture
def app() -> TaskHarbor:
    return TaskHarbor("memory://")


def message_of(task: Any, *args: Any, **kwargs: Any) -> Message:
    message = task.message(args, kwargs)
    assert isinstance(message, Message)
    return message


# --- a task is a function -------------------------------------------------------------------------


def test_a_task_is_still_a_plain_function(app: TaskHarbor) -> None:
    @app.task
    def add(x: int, y: int = 1) -> int:
        """Adds."""
        return x + y

    assert isinstance(add, SyncTask)
    assert add(2) == 3
    assert add(2, y=5) == 7
    assert (add.__name__, add.__doc__) == ("add", "Adds.")  # type: ignore[attr-defined]
    assert str(inspect.signature(add)) == "(x: int, y: int = 1) -> int"


def test_an_async_task_is_still_a_coroutine_function(app: TaskHarbor) -> None:
    @app.task
    async def add(x: int) -> int:
        return x + current_job().attempt

    assert isinstance(add, AsyncTask)
    assert asyncio.run(add(2)) == 3


def test_a_bound_task_gets_itself_as_its_first_argument(app: TaskHarbor) -> None:
    @app.task(bind=True)
    def who(self: Any, x: int) -> tuple[str, int, int]:
        return self.name, self.request.attempt, x

    assert who(5) == (who.name, 1, 5)
    assert str(inspect.signature(who)) == "(x: int) -> tuple[str, int, int]"


def test_a_bound_task_needs_a_parameter_for_itself(app: TaskHarbor) -> None:
    with pytest.raises(ConfigurationError, match="bind=True"):

        @app.task(bind=True)  # type: ignore[arg-type]
        def nothing() -> None: ...


def test_a_task_is_named_after_module_and_function(app: TaskHarbor) -> None:
    @app.task
    def add() -> None: ...

    @app.task(name="shop.send")
    def send() -> None: ...

    here = f"{__name__}.test_a_task_is_named_after_module_and_function"
    assert add.name == f"{here}.add"
    assert send.name == "shop.send"
    assert app.tasks == {add.name: add, "shop.send": send}


def test_a_lambda_needs_a_name(app: TaskHarbor) -> None:
    with pytest.raises(ConfigurationError, match="give it one: name="):
        app.task(lambda: None)
    assert app.task(name="nothing")(lambda: None).name == "nothing"


def test_an_empty_name_is_refused(app: TaskHarbor) -> None:
    with pytest.raises(InvalidJob, match="''"):

        @app.task(name="")
        def nameless() -> None: ...


def test_two_functions_cannot_share_a_name(app: TaskHarbor) -> None:
    @app.task(name="same")
    def one() -> None: ...

    with pytest.raises(ConfigurationError, match="two tasks named 'same'"):

        @app.task(name="same")
        def two() -> None: ...


def test_a_task_defined_again_replaces_itself(app: TaskHarbor) -> None:
    def define(value: int) -> SyncTask[[], int]:
        @app.task
        def cell() -> int:
            return value

        return cell

    first, second = define(1), define(2)
    assert first.name == second.name
    assert app.tasks[second.name] is second


def numbers() -> Iterator[int]:
    yield 1


async def more_numbers() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("thing", [numbers, more_numbers], ids=["sync", "async"])
def test_a_generator_cannot_be_a_task(app: TaskHarbor, thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="it yields"):
        app.task(thing)


def test_an_object_that_can_be_called_can_be_a_task(app: TaskHarbor) -> None:
    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

    class AsyncAdder:
        async def __call__(self, x: int) -> int:
            return x + 1

    with testing.inline(app):
        assert app.task(name="sync")(Adder()).delay(1).get() == 2
        assert app.task(name="async")(AsyncAdder()).delay(1).get() == 2
    assert isinstance(app.tasks["async"], AsyncTask)


def test_a_task_pickles_by_name_with_its_call_options() -> None:
    app = TaskHarbor("memory://", name="pickling tasks")

    @app.task
    def add(x: int) -> int:
        return x

    assert pickle.loads(pickle.dumps(add)) is add
    again = pickle.loads(pickle.dumps(add.using(queue="q").s(1)))
    assert again == add.using(queue="q").s(1)
    data = pickle.dumps(add)
    app.tasks.clear()
    with pytest.raises(ConfigurationError, match=r"no task .* import the module"):
        pickle.loads(data)


@pytest.mark.parametrize("thing", [3, int, "shop.add"])
def test_only_functions_can_be_tasks(app: TaskHarbor, thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="can't be a task"):
        app.task(thing)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"z": 1}, "unexpected keyword argument 'z'"),
        ((1,), {"x": 1}, "multiple values for argument 'x'"),
    ],
)
def test_arguments_are_checked_against_the_signature_when_enqueued(
    app: TaskHarbor, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    @app.task(name="add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    for _ in range(2):
        with pytest.raises(TypeError, match=says) as raised:
            add.delay(*args, **kwargs)
        assert isinstance(raised.value, InvalidCall)
        assert str(raised.value).startswith("add(x: int, y: int = 0) -> int: ")
    message_of(add, 1)
    message_of(add, 1, y=2)


def test_a_bound_tasks_self_is_no_argument(app: TaskHarbor) -> None:
    @app.task(bind=True)
    def add(self: Any, x: int) -> int:
        return x

    message_of(add, 1)
    with pytest.raises(InvalidCall):
        add.apply_async((1, 2))


def test_shapes_of_calls_are_remembered_only_up_to_a_bound(app: TaskHarbor) -> None:
    @app.task
    def anything(**options: int) -> None: ...

    for number in range(1000):
        message_of(anything, **{f"option_{number}": 1})
    assert len(anything.arguments._shapes) < 1000
    with pytest.raises(InvalidCall):
        anything.apply_async((1,))


def test_an_argument_that_cannot_travel_is_named_by_its_path(app: TaskHarbor) -> None:
    @app.task
    def add(x: Any) -> None: ...

    with pytest.raises(EncodeError, match=r"args\[0\]\['rows'\]\[1\]"):
        add.delay({"rows": [1, object()]})


def test_a_payload_over_its_limit_is_refused(app: TaskHarbor) -> None:
    @app.task(max_payload_bytes=1000)
    def add(x: str) -> None: ...

    message_of(add, "x" * 900)
    with pytest.raises(PayloadTooLarge, match=r"1,000|max_payload_bytes"):
        add.delay("x" * 1001)


# --- options of a task ----------------------------------------------------------------------------


def test_options_travel_in_the_message(app: TaskHarbor) -> None:
    @app.task(
        queue="mail",
        priority=3,
        max_attempts=8,
        backoff=Fixed(4),
        timeout=30,
        expires=60,
        keep_succeeded=1,
        keep_cancelled=2,
        keep_dead=3,
    )
    def send(to: str) -> None: ...

    message = message_of(send, "a@b.c")
    assert (message.queue, message.priority, message.expires_in) == ("mail", 3, 60)
    assert message.retention == Retention(1, 2, 3)
    call = read_body(message.body)
    assert call.timeout == 30
    assert (call.policy.max_attempts, call.policy.backoff) == (8, ("fixed", 4))


def test_no_time_limit_has_to_be_said(app: TaskHarbor) -> None:
    @app.task(timeout=None)
    def forever() -> None: ...

    @app.task
    def usual() -> None: ...

    assert read_body(message_of(forever).body).timeout is None
    assert read_body(message_of(usual).body).timeout == 3600


def test_an_app_has_defaults_for_its_tasks() -> None:
    app = TaskHarbor("memory://", queue="all", max_attempts=2)

    @app.task(max_attempts=3)
    def one() -> None: ...

    assert (one.options.queue, one.options.max_attempts) == ("all", 3)


def test_an_unknown_task_option_is_refused_with_a_suggestion(app: TaskHarbor) -> None:
    with pytest.raises(ConfigurationError, match="'max_atempts'; did you mean 'max_attempts'"):
        app.task(max_atempts=3)
    with pytest.raises(ConfigurationError, match="known are backoff, bind, expires"):
        app.task(zzz=3)
    with pytest.raises(ConfigurationError, match="did you mean 'queue'"):
        TaskHarbor("memory://", queu="x")


@pytest.mark.parametrize(
    "option",
    [
        {"queue": "mail!"},
        {"queue": ""},
        {"priority": 101},
        {"priority": True},
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"max_attempts": 2.0},
        {"timeout": 0},
        {"timeout": -5},
        {"timeout": float("nan")},
        {"timeout": "5"},
        {"max_losses": 0},
        {"expires": -1},
        {"expires": 0},
        {"keep_succeeded": -1},
        {"keep_dead": float("inf")},
        {"unknown_task_seconds": -1},
        {"max_payload_bytes": 0},
        {"max_result_bytes": -1},
        {"backoff": 5},
        {"settle": "never"},
        {"retry_on": "ValueError"},
        {"no_retry_on": (ValueError, 3)},
        {"no_retry_on": Reject},
        {"retry_on": Retry},
    ],
    ids=str,
)
def test_an_option_out_of_its_range_is_an_error_of_the_decorator(
    app: TaskHarbor, option: dict[str, Any]
) -> None:
    name = next(iter(option))
    with pytest.raises((InvalidJob, ConfigurationError), match=name):
        app.task(**option)


def test_exceptions_to_retry_and_not_to_retry_must_not_contradict(app: TaskHarbor) -> None:
    with pytest.raises(ConfigurationError, match="retry_on has ConnectionError, but no_retry_on"):
        app.task(retry_on=(KeyError, ConnectionError), no_retry_on=OSError)

    @app.task(retry_on=OSError, no_retry_on=ConnectionError)
    def narrowing() -> None: ...

    assert narrowing.options.retries(OSError())
    assert not narrowing.options.retries(ConnectionError())
    assert not narrowing.options.retries(ValueError())


# --- options of a call ----------------------------------------------------------------------------


def test_using_lays_options_over_a_task_and_leaves_it_alone(app: TaskHarbor) -> None:
    @app.task(queue="mail")
    def send(to: str) -> None: ...

    bulk = send.using(queue="bulk", priority=9)
    urgent = bulk.using(priority=50)
    assert message_of(bulk, "a")[4:6] == ("bulk", 9)
    assert message_of(urgent, "a")[4:6] == ("bulk", 50)
    assert message_of(send, "a")[4:6] == ("mail", 0)
    assert type(bulk) is type(send)


def test_every_call_option_reaches_the_message(app: TaskHarbor) -> None:
    @app.task
    def send(to: str) -> None: ...

    eta = datetime(2030, 1, 1, tzinfo=UTC)
    message = message_of(
        send.using(
            queue="q",
            priority=-5,
            eta=eta,
            expires=eta + timedelta(hours=1),
            idempotency_key="k",
            key_until="terminal",
            max_attempts=7,
            backoff=Exponential(base=3),
            timeout=9,
            headers={"trace": "x"},
            job_id="my-id",
        ),
        "a",
    )
    assert (message.id, message.queue, message.priority) == ("my-id", "q", -5)
    assert (message.eta, message.expires_at) == (eta.timestamp(), eta.timestamp() + 3600)
    assert (message.idempotency_key, message.key_until) == ("k", "terminal")
    call = read_body(message.body)
    assert (call.timeout, call.headers) == (9, {"trace": "x"})
    assert call.policy[:2] == (7, Exponential(base=3).pack())


def test_an_eta_in_another_zone_is_the_same_moment(app: TaskHarbor) -> None:
    @app.task
    def send() -> None: ...

    eta = datetime(2030, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))
    assert message_of(send.using(eta=eta)).eta == datetime(2030, 1, 1, tzinfo=UTC).timestamp()


def test_a_past_eta_means_now(app: TaskHarbor) -> None:
    @app.task
    def send() -> int:
        return 1

    with testing.memory(app) as jobs:
        result = send.apply_async(eta=datetime(2001, 1, 1, tzinfo=UTC))
        assert result.state == "ready"
        jobs.drain()
        assert result.get() == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eta": datetime(2030, 1, 1)}, "naive datetime 2030-01-01T00:00:00.*time zone"),  # noqa: DTZ001
        ({"expires": datetime(2030, 1, 1)}, "expires is the naive datetime"),  # noqa: DTZ001
        ({"eta": 5}, "eta is 5; use an aware datetime, or countdown="),
        ({"countdown": -1}, "countdown is -1"),
        ({"countdown": float("nan")}, "countdown is nan"),
        ({"countdown": "5"}, "countdown is '5'"),
        ({"countdown": 5, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "either a countdown or an eta"),
        ({"expires": -5}, "expires"),
        ({"queue": "a b"}, "queue 'a b'"),
        ({"priority": 1000}, "priority is 1000"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"timeout": -1}, "timeout is -1"),
        ({"idempotency_key": ""}, "idempotency_key ''"),
        ({"idempotency_key": "a\nb"}, "idempotency_key"),
        ({"idempotency_key": "x" * 256}, "idempotency_key"),
        ({"idempotency_key": "k", "key_until": -1}, "key_until"),
        ({"job_id": "no spaces"}, "job id 'no spaces'"),
        ({"headers": {"x": object()}}, "headers can't be encoded"),
        ({"headers": {1: "x"}}, "headers can't be encoded"),
        ({"headers": {"x": "y" * 10_000}}, "headers take .* over the limit of 8,192"),
        ({"count_down": 5}, "did you mean 'countdown'"),
    ],
)
def test_a_call_option_that_cannot_work_is_refused(
    app: TaskHarbor, options: dict[str, Any], says: str
) -> None:
    @app.task
    def send() -> None: ...

    with pytest.raises((InvalidJob, ConfigurationError, EncodeError), match=says):
        send.apply_async(**options)
    with pytest.raises((InvalidJob, ConfigurationError, EncodeError), match=says):
        send.using(**options)


# --- self.retry -----------------------------------------------------------------------------------


def test_self_retry_raises_retry_with_celerys_names(app: TaskHarbor) -> None:
    cause = ValueError("no")

    @app.task(bind=True)
    def fetch(self: Any, /, **options: Any) -> None:
        raise self.retry(exc=cause, **options)

    with pytest.raises(Retry) as raised:
        fetch(countdown=5)
    assert raised.value.delay == 5
    assert raised.value.__cause__ is cause
    with pytest.raises(ValueError, match="no"):
        fetch(max_retries=0)


def test_self_retry_without_an_error_is_rejected_past_its_limit(app: TaskHarbor) -> None:
    @app.task(bind=True)
    def fetch(self: Any, /, **options: Any) -> None:
        raise self.retry(**options)

    with pytest.raises(Reject, match="0 times"):
        fetch(max_retries=0)


def test_self_retry_refuses_what_names_no_moment(app: TaskHarbor) -> None:
    @app.task(bind=True)
    def fetch(self: Any, /, **options: Any) -> None:
        raise self.retry(**options)

    soon = datetime.now(UTC)
    with pytest.raises(InvalidJob, match="naive"):
        fetch(eta=soon.replace(tzinfo=None))
    with pytest.raises(InvalidJob, match="drop one"):
        fetch(eta=soon, countdown=1)
    with pytest.raises(InvalidJob, match="number of seconds"):
        fetch(countdown=-1)

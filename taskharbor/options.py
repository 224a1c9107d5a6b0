"""What can be set for a task and for a single call, checked where it is written down.

Seconds and bytes throughout. An app holds one :class:`TaskOptions` as its defaults, each task its
own made over those, and ``using()`` / ``apply_async()`` lay :class:`CallOptions` over that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal, TypedDict

from taskharbor import defaults
from taskharbor.backoff import DEFAULT, Backoff
from taskharbor.control import SoftTimeLimit, Steering
from taskharbor.errors import ConfigurationError, EncodeError, InvalidJob
from taskharbor.message import (
    Call,
    Message,
    Policy,
    Retention,
    Template,
    check_name,
    check_priority,
    check_seconds,
)

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]

_ANY_ID = "0"
"""Stands for the job's id in a pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The options of one task. Raises ConfigurationError or InvalidJob, naming the option.

    ``timeout``: soft limit of an attempt; None for none. ``retry_on``: only these exceptions are
    worth another attempt (None: all); ``no_retry_on``: these never are. ``expires``: a job that has
    not started this long after its enqueue is cancelled. ``keep_*``: how long the job's record and
    result stay after it ended. ``settle="each"``: report the end of each job at once, not with the
    next few. ``extras``: options that middleware declared.
    """

    queue: str = defaults.QUEUE
    priority: int = 0
    max_attempts: int = defaults.MAX_ATTEMPTS
    backoff: Backoff = DEFAULT
    timeout: float | None = defaults.TIMEOUT_SECONDS
    max_losses: int = defaults.MAX_LOSSES
    unknown_task_seconds: float = defaults.UNKNOWN_TASK_SECONDS
    retry_on: ExceptionTypes | None = None
    no_retry_on: ExceptionTypes = ()
    expires: float | None = None
    store_result: bool = True
    keep_succeeded: float = defaults.KEEP_SUCCEEDED_SECONDS
    keep_cancelled: float = defaults.KEEP_CANCELLED_SECONDS
    keep_dead: float = defaults.KEEP_DEAD_SECONDS
    settle: Literal["batch", "each"] = "batch"
    max_payload_bytes: int = defaults.MAX_PAYLOAD_BYTES
    max_result_bytes: int = defaults.MAX_RESULT_BYTES
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("queue", self.queue)
        check_priority(self.priority)
        check_max_attempts(self.max_attempts)
        check_timeout(self.timeout)
        _check_whole("max_losses", self.max_losses, 1, 1_000_000)
        _check_whole("max_payload_bytes", self.max_payload_bytes, 64, 1 << 30)
        _check_whole("max_result_bytes", self.max_result_bytes, 64, 1 << 30)
        for name in ("unknown_task_seconds", "keep_succeeded", "keep_cancelled", "keep_dead"):
            check_seconds(name, getattr(self, name), most=defaults.MAX_DELAY_SECONDS)
        if self.expires is not None:
            _check_expires(self.expires)
        if not callable(getattr(self.backoff, "pack", None)):
            raise ConfigurationError(
                f"backoff is {self.backoff!r}; use Exponential(...), Fixed(...) or Delays(...)"
            )
        if self.settle not in ("batch", "each"):
            raise ConfigurationError(f"settle is {self.settle!r}; use 'batch' or 'each'")
        self._check_exception_types()

    def _check_exception_types(self) -> None:
        # Normalised here once: the executor reads tuples.
        no_retry_on = _as_types("no_retry_on", self.no_retry_on)
        object.__setattr__(self, "no_retry_on", no_retry_on)
        if self.retry_on is None:
            return
        retry_on = _as_types("retry_on", self.retry_on)
        object.__setattr__(self, "retry_on", retry_on)
        for wanted in retry_on:
            if issubclass(wanted, no_retry_on):
                raise ConfigurationError(
                    f"retry_on has {wanted.__name__}, but no_retry_on excludes it; take it out of "
                    "one of them"
                )

    def retries(self, error: BaseException) -> bool:
        """Whether ``error`` is worth another attempt, if one is left."""
        if isinstance(error, self.no_retry_on):
            return False
        # Running out of time says nothing about the error types: it is retried as long as
        # attempts are left, like a lost worker.
        return self.retry_on is None or isinstance(error, (self.retry_on, SoftTimeLimit))


OPTION_NAMES = frozenset(option.name for option in fields(TaskOptions)) - {"extras"}


DECORATOR_OPTIONS = frozenset({"name", "bind", "transactional"})
"""What ``@app.task`` takes beside these: what the function is, not how its jobs are run."""


class CallOptions(TypedDict, total=False):
    """What ``apply_async()``, ``using()`` and ``Signature.set()`` can set for single calls.

    ``countdown``: seconds until the job may start. ``eta``: an aware datetime instead; one in the
    past means now. ``expires``: seconds or an aware datetime after which the job is no longer worth
    starting. ``key_until``: how long ``idempotency_key`` belongs to its job: as long as the job's
    record exists, until it is terminal, or this many seconds. ``headers``: small, for middleware
    and ``current_job().headers``. ``connection``: an open transaction to enqueue in, where the
    driver can.
    """

    queue: str
    priority: int
    countdown: float
    eta: datetime
    expires: float | datetime | None
    idempotency_key: str | None
    key_until: Literal["record", "terminal"] | float
    max_attempts: int
    backoff: Backoff
    timeout: float | None
    headers: Mapping[str, Any]
    job_id: str | None
    connection: Any


CALL_OPTION_NAMES = frozenset(CallOptions.__annotations__)


def over(base: TaskOptions, given: Mapping[str, Any], declared: Mapping[str, Any]) -> TaskOptions:
    """``base`` with what was ``given``; names in ``declared`` (by middleware, with their defaults)
    become extras.

    Raises ConfigurationError, with a suggestion, for a name that nobody declares.
    """
    unknown = [name for name in given if name not in OPTION_NAMES and name not in declared]
    if unknown:
        known = {*OPTION_NAMES, *declared, *DECORATOR_OPTIONS}
        raise unknown_option("task option", unknown[0], known)
    own = {name: value for name, value in given.items() if name in OPTION_NAMES}
    extras = {name: given.get(name, default) for name, default in declared.items()}
    return replace(base, **own, extras=extras)


_METHODS = ("link", "link_error")
"""Options of a call in Celery."""


def unknown_option(what: str, name: str, known: Iterable[str]) -> ConfigurationError:
    import difflib

    if name in _METHODS:
        hint = f"write the call down and say it there: task.s(...).{name}(callback)"
    elif close := difflib.get_close_matches(name, known, n=1):
        hint = f"did you mean {close[0]!r}?"
    else:
        hint = f"known are {', '.join(sorted(known))}"
    return ConfigurationError(f"there is no {what} {name!r}; {hint}")


def template(task: str, options: TaskOptions, call: CallOptions) -> Template:
    """What every job of ``task`` enqueued with these options has in common.

    Raises InvalidJob or ConfigurationError, naming the option.
    """
    for name in call:
        if name not in CALL_OPTION_NAMES:
            raise unknown_option("call option", name, CALL_OPTION_NAMES)
    pattern = Message(
        id=_ANY_ID,
        task=task,
        body=b"",
        queue=call.get("queue", options.queue),
        priority=call.get("priority", options.priority),
        delay=_countdown(call),
        eta=_eta(call),
        **_expiry(call.get("expires", options.expires)),
        idempotency_key=call.get("idempotency_key"),
        key_until=call.get("key_until", "record"),
        retention=Retention(options.keep_succeeded, options.keep_cancelled, options.keep_dead),
    )
    return Template(pattern, _call(options, call), limit=options.max_payload_bytes)


def _call(options: TaskOptions, call: CallOptions) -> Call:
    backoff = call.get("backoff", options.backoff)
    policy = Policy(
        max_attempts=check_max_attempts(call.get("max_attempts", options.max_attempts)),
        backoff=None if backoff == DEFAULT else backoff.pack(),
        max_losses=options.max_losses,
        unknown_task_seconds=options.unknown_task_seconds,
    )
    timeout = check_timeout(call.get("timeout", options.timeout))
    return Call(b"", timeout, policy, _headers(call.get("headers")))


def _countdown(call: CallOptions) -> float:
    delay = call.get("countdown", 0.0)
    check_seconds("countdown", delay, most=defaults.MAX_DELAY_SECONDS)
    if delay and call.get("eta") is not None:
        raise InvalidJob("a call has either a countdown or an eta, not both; drop one of them")
    return delay


def _eta(call: CallOptions) -> float | None:
    eta = call.get("eta")
    return None if eta is None else timestamp("eta", eta)


def _expiry(expires: float | datetime | None) -> dict[str, Any]:
    if isinstance(expires, datetime):
        return {"expires_at": timestamp("expires", expires)}
    if expires is not None:
        _check_expires(expires)
    return {"expires_in": expires}


def _check_expires(seconds: object) -> None:
    check_seconds("expires", seconds, most=defaults.MAX_DELAY_SECONDS)
    if not seconds:
        raise InvalidJob("expires is 0; a job must be given more than 0 seconds to start")


def timestamp(name: str, moment: object) -> float:
    """Seconds since the epoch. Raises InvalidJob for what is no aware datetime."""
    if not isinstance(moment, datetime):
        raise InvalidJob(
            f"{name} is {moment!r}; use an aware datetime, or countdown= for seconds from now"
        )
    if moment.utcoffset() is None:
        raise InvalidJob(
            f"{name} is the naive datetime {moment.isoformat()}, which means another moment on "
            "every machine; give it a time zone: datetime.now(timezone.utc) + timedelta(...)"
        )
    return moment.timestamp()


def _headers(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    if not headers:
        return {}
    import msgpack

    try:
        if not all(type(name) is str for name in headers):
            raise TypeError("every name must be a str")
        size = len(msgpack.packb(dict(headers)))
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodeError(f"headers can't be encoded ({error}); use plain values") from error
    if size > defaults.MAX_HEADERS_BYTES:
        raise InvalidJob(
            f"headers take {size:,} bytes, over the limit of {defaults.MAX_HEADERS_BYTES:,}; pass "
            "large values as arguments"
        )
    return dict(headers)


def check_max_attempts(value: object) -> int:
    return _check_whole("max_attempts", value, 1, 1_000_000)


def check_timeout(value: object) -> float | None:
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (math.isfinite(value) and 0 < value <= defaults.MAX_DELAY_SECONDS)
    ):
        raise InvalidJob(
            f"timeout is {value!r}; use a number of seconds above 0, or None for no limit"
        )
    return value


def _check_whole(name: str, value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise InvalidJob(f"{name} is {value!r}; use a whole number from {least} to {most:,}")
    return value


def _as_types(name: str, given: object) -> tuple[type[BaseException], ...]:
    types = given if isinstance(given, tuple | list | set | frozenset) else (given,)
    for item in types:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise ConfigurationError(f"{name} has {item!r}; use exception types")
        if issubclass(item, Steering):
            raise ConfigurationError(
                f"{name} has {item.__name__}, which says by itself how the attempt ends; take it "
                "out"
            )
    return tuple(types)

"""Reading what a flow's jobs have come to: for the next job, and for whoever waits for the flow.

Results are read in pages, when they are needed; what is held at once is the list that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from taskharbor import codec, defaults
from taskharbor.errors import InputNotReady, PayloadTooLarge, ResultNotStored
from taskharbor.flow.gathered import MARK, Gathered
from taskharbor.result import cancelled, failed
from taskharbor.states import Reason, State
from taskharbor.wiring import Runs, Take, Wiring, within

if TYPE_CHECKING:
    from taskharbor.drivers.base import Outcome
    from taskharbor.drivers.flows import FlowDriver, Input


_FIRST_PAGE, _MOST_IN_PAGE = 100, 2_500
_PAGE_BYTES = 4 << 20
"""The first page tells how large results are; a store is busy for a millisecond or two with one."""


class Arguments(NamedTuple):
    """What a job is called with beside its own arguments. ``failures``: some are exceptions."""

    args: list[Any]
    kwargs: dict[str, Any]
    failures: bool


def read_arguments(driver: FlowDriver, job_id: str, wiring: Wiring) -> Arguments:
    """What ``wiring`` says that the job is given.

    Raises InputNotReady when a predecessor has not succeeded (any more), PayloadTooLarge for
    more than ``defaults.MAX_INPUT_BYTES`` in all, DecodeError, and what the store raises.
    """
    if wiring.error:
        return Arguments(_read_error(driver, job_id, wiring.error), {}, True)
    reader = _Reader(driver)
    takes = [*wiring.args, *wiring.kwargs.values()]
    until = max(take.first + (1 if take.size is None else take.size) for take in takes)
    values = reader.values(job_id, until, wiring.allowed)
    args = [_taken(take, values) for take in wiring.args]
    kwargs = {name: _taken(take, values) for name, take in wiring.kwargs.items()}
    return Arguments(args, kwargs, reader.failures)


def _taken(take: Take, values: list[Any]) -> Any:
    if take.size is None:
        return values[take.first]
    return values[take.first : take.first + take.size]


def read_list(driver: FlowDriver, job_id: str, gathered: Gathered) -> list[Any]:
    """The list that the join ``job_id`` stands for. Raises like ``read_arguments``, without a limit
    of size."""
    reader = _Reader(driver, limit=None)
    return reader.values(job_id, gathered.size, gathered.allowed)


def pages(driver: FlowDriver, job_id: str) -> Iterator[Input]:
    """The predecessors of a job in order, read as they are asked for."""
    after = -1
    while True:
        page = driver.inputs(job_id, after=after, limit=defaults.BATCH)
        yield from page
        if len(page) < defaults.BATCH:
            return
        after = page[-1].position


class _Reader:
    """Reads values; ``failures``: whether there was an exception among them."""

    def __init__(self, driver: FlowDriver, *, limit: int | None = defaults.MAX_INPUT_BYTES) -> None:
        self.failures = False
        self._driver = driver
        self._limit = limit
        self._read = 0

    def values(self, job_id: str, count: int, allowed: Runs) -> list[Any]:
        values: list[Any] = []
        page = _FIRST_PAGE
        while len(values) < count:
            wanted = min(page, count - len(values))
            found = self._driver.input_results(job_id, after=len(values) - 1, limit=wanted)
            results = _before_joins(found)
            size = self._taken(results)
            values += codec.decode_all(results)
            if len(results) < wanted:
                self._look_closer(job_id, values, count, allowed)
            else:
                page = min(_MOST_IN_PAGE, max(1, _PAGE_BYTES * wanted // size))
        return values

    def _taken(self, results: list[bytes]) -> int:
        """How many bytes they are. Raises PayloadTooLarge."""
        size = sum(map(len, results))
        self._read += size
        if self._limit is not None and self._read > self._limit:
            raise PayloadTooLarge(
                f"the results that the job takes are over the limit of {self._limit:,} bytes in "
                "all; store the data elsewhere and return references"
            )
        return size

    def _look_closer(self, job_id: str, values: list[Any], count: int, allowed: Runs) -> None:
        """Append some of what comes next, where there is more to know than a result."""
        wanted = min(_FIRST_PAGE, count - len(values))
        found = self._driver.inputs(job_id, after=len(values) - 1, limit=wanted)
        for given in found:
            if given.position == len(values):
                values.append(self._value(job_id, given, within(given.position, allowed)))
        if len(values) < count and (not found or found[-1].position != len(values) - 1):
            raise InputNotReady(
                f"job {job_id} has {len(values)} of the {count} predecessors that it takes results "
                "of; were they deleted?",
                job_id=job_id,
            )

    def _value(self, job_id: str, given: Input, allowed: bool) -> Any:
        outcome = given.outcome
        if outcome.state is State.SUCCEEDED:
            if outcome.result is None:
                raise ResultNotStored(
                    f"job {given.job_id} kept no result for job {job_id}, which takes it",
                    job_id=given.job_id,
                )
            return self._decoded(given.job_id, outcome.result)
        if allowed and outcome.state.terminal:
            self.failures = True
            return exception_of(self._driver, given.job_id, outcome)
        raise InputNotReady(
            f"job {job_id} takes the result of job {given.job_id}, which is {outcome.state} now",
            job_id=job_id,
        )

    def _decoded(self, job_id: str, result: bytes) -> Any:
        self._taken([result])
        gathered = Gathered.decode(result)
        if gathered is None:
            return codec.decode(result)
        return self.values(job_id, gathered.size, gathered.allowed)


def _before_joins(results: list[bytes]) -> list[bytes]:
    """Those before the first that stands for a list: to read that, one must know whose it is."""
    if MARK in b"".join(results):
        for place, result in enumerate(results):
            if result.startswith(MARK):
                return results[:place]
    return results


# --- failures -----------------------------------------------------------------------------------


def exception_of(driver: FlowDriver, job_id: str, outcome: Outcome) -> Exception:
    """What ``get()`` raises for a job that ended without success: its own error, or that of the job
    which it has waited for in vain."""
    cause = find_cause(driver, job_id, outcome)
    if cause is not None:
        job_id, outcome = cause
    if outcome.state is State.DEAD:
        return failed(job_id, outcome.reason, outcome.error)
    return cancelled(job_id, outcome.reason)


_MOST_LOOKED_AT = 10_000


def find_cause(driver: FlowDriver, job_id: str, outcome: Outcome) -> tuple[str, Outcome] | None:
    """Of a job that was skipped: the first job before it that is dead, else the first that was
    cancelled for another reason than that. None if it was not skipped, or nothing is found."""
    if not _skipped(outcome):
        return None
    other: tuple[str, Outcome] | None = None
    unseen, seen = [job_id], {job_id}
    left = _MOST_LOOKED_AT
    while unseen:
        for given in pages(driver, unseen.pop()):
            left -= 1
            if given.outcome.state is State.DEAD:
                return given.job_id, given.outcome
            if left <= 0:
                return other
            if _skipped(given.outcome) and given.job_id not in seen:
                seen.add(given.job_id)
                unseen.append(given.job_id)
            elif given.outcome.state is State.CANCELLED and other is None:
                other = given.job_id, given.outcome
    return other


def _skipped(outcome: Outcome) -> bool:
    return outcome.state is State.CANCELLED and outcome.reason is Reason.UPSTREAM


def _read_error(driver: FlowDriver, job_id: str, count: int) -> list[Any]:
    for given in pages(driver, job_id):
        if given.outcome.state is State.DEAD:
            break
    else:
        raise InputNotReady(
            f"job {job_id} is about a dead job, and none of those it watches is dead any more",
            job_id=job_id,
        )
    if count == 1:
        return [given.job_id]
    job = driver.get(given.job_id)
    if job is None:
        raise InputNotReady(f"job {given.job_id} is gone", job_id=job_id)
    from taskharbor.info import describe

    error = failed(given.job_id, given.outcome.reason, given.outcome.error)
    return [describe(job), error, error.remote_traceback]


def as_flows(driver: object) -> FlowDriver:
    """A driver that stored a flow's job, as what it is."""
    return cast("FlowDriver", driver)

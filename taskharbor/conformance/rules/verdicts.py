"""Who may still do what with a job: the verdict table cell by cell, and the moves that are not in
the states table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from taskharbor.clock import ManualClock
from taskharbor.conformance.support import HOLDER, Suite, all_pages, apply, get, put, settle, take
from taskharbor.drivers.base import Extended, InspectableDriver, Renewal, Settled
from taskharbor.lease import Guard, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import FLOW_MOVES, MOVES, Move, State

Fences = dict[str, int]
Ending = Callable[[str, int], Settlement]

SHORT, LONG = 10.0, 10_000.0

OUTCOMES: dict[str, Ending] = {
    "succeed": lambda job_id, fence: Settlement.succeed(job_id, fence, b"new"),
    "die": lambda job_id, fence: Settlement.die(job_id, fence, error=b"new"),
    "cancel": Settlement.cancel,
    "retry": lambda job_id, fence: Settlement.retry(job_id, fence, delay=0, error=b"new"),
    "retry later": lambda job_id, fence: Settlement.retry(job_id, fence, delay=5, error=b"new"),
    "lost": lambda job_id, fence: Settlement.retry(job_id, fence, delay=0, error=b"", loss=True),
    "release": Settlement.release,
    "interrupted": lambda job_id, fence: Settlement.release(job_id, fence, loss=True),
    "snooze": lambda job_id, fence: Settlement.snooze(job_id, fence, delay=0),
    "unknown": lambda job_id, fence: Settlement.snooze(job_id, fence, delay=5, unknown=True),
}
TERMINAL_OUTCOMES = ("succeed", "die", "cancel")


# --- situations: how a job got where it is, and the fence it had last --------------------------


def _waiting(driver: InspectableDriver, job_ids: list[str], queue: str, **fields: Any) -> Fences:
    put(driver, *job_ids, queue=queue, **fields)
    return dict.fromkeys(job_ids, 1)


def _scheduled(driver: InspectableDriver, job_ids: list[str], queue: str, **fields: Any) -> Fences:
    return _waiting(driver, job_ids, queue, delay=5.0, **fields)


def _reserved(
    driver: InspectableDriver,
    job_ids: list[str],
    queue: str,
    lease: float = LONG,
    **fields: Any,
) -> Fences:
    put(driver, *job_ids, queue=queue, **fields)
    return {got.id: got.fence for got in take(driver, len(job_ids), queue=queue, lease=lease)}


def _expired(driver: InspectableDriver, job_ids: list[str], queue: str) -> Fences:
    return _reserved(driver, job_ids, queue, SHORT)


def _ended(outcome: str) -> Callable[..., Fences]:
    def stage(driver: InspectableDriver, job_ids: list[str], queue: str, **fields: Any) -> Fences:
        fences = _reserved(driver, job_ids, queue, **fields)
        apply(driver, *(OUTCOMES[outcome](*lease) for lease in fences.items()))
        return fences

    return stage


def _cancelled_on_request(driver: InspectableDriver, job_ids: list[str], queue: str) -> Fences:
    fences = _reserved(driver, job_ids, queue)
    driver.cancel(job_ids)
    apply(driver, *(OUTCOMES["retry"](*lease) for lease in fences.items()))
    return fences


def _cancelled_while_waiting(driver: InspectableDriver, job_ids: list[str], queue: str) -> Fences:
    fences = _ended("release")(driver, job_ids, queue)
    driver.cancel(job_ids)
    return fences


def _deleted(driver: InspectableDriver, job_ids: list[str], queue: str) -> Fences:
    fences = _ended("succeed")(driver, job_ids, queue)
    driver.delete(job_ids)
    return fences


def _never_enqueued(driver: InspectableDriver, job_ids: list[str], queue: str) -> Fences:
    return dict.fromkeys(job_ids, 1)


class Situation(NamedTuple):
    state: State | None
    stage: Callable[..., Fences]


SITUATIONS = {
    "valid": Situation(State.RUNNING, _reserved),
    "expired": Situation(State.RUNNING, _expired),
    "never reserved": Situation(State.READY, _waiting),
    "scheduled": Situation(State.SCHEDULED, _scheduled),
    "back in line": Situation(State.READY, _ended("retry")),
    "back on schedule": Situation(State.SCHEDULED, _ended("retry later")),
    "succeeded": Situation(State.SUCCEEDED, _ended("succeed")),
    "dead": Situation(State.DEAD, _ended("die")),
    "cancelled by its task": Situation(State.CANCELLED, _ended("cancel")),
    "cancelled on request": Situation(State.CANCELLED, _cancelled_on_request),
    "cancelled while waiting": Situation(State.CANCELLED, _cancelled_while_waiting),
    "deleted": Situation(None, _deleted),
    "never enqueued": Situation(None, _never_enqueued),
}


# --- the table ----------------------------------------------------------------------------------


class Cell(NamedTuple):
    """``current``: the fence that is shown is the last one that the job had. ``outcome`` "extend"
    is no settle."""

    situation: str
    current: bool
    outcome: str
    guard: Guard = Guard.VALID

    def verdict(self) -> Verdict:
        """The table of docs/driver-contract.md, row by row."""
        state = SITUATIONS[self.situation].state
        if state is None:
            return Verdict.NOT_FOUND
        if state is State.RUNNING:
            return self._verdict_on_running() if self.current else Verdict.MISMATCH
        if not state.terminal:
            return Verdict.NOT_RUNNING
        if not self.current or self.situation == "cancelled while waiting":
            return Verdict.MISMATCH
        return Verdict.ALREADY if self.outcome in TERMINAL_OUTCOMES else Verdict.NOT_RUNNING

    def _verdict_on_running(self) -> Verdict:
        expired = self.situation == "expired"
        match self.guard:
            case Guard.ANY:
                return Verdict.APPLIED
            case Guard.EXPIRED:
                return Verdict.APPLIED if expired else Verdict.STILL_VALID
            case Guard.VALID:
                return Verdict.EXPIRED if expired else Verdict.APPLIED


def _table(*outcomes: str, guards: tuple[Guard, ...] = (Guard.VALID,)) -> list[Cell]:
    return [
        Cell(situation, current, outcome, guard)
        for situation in SITUATIONS
        for current in (True, False)
        for outcome in outcomes
        for guard in guards
    ]


def _stage(
    driver: InspectableDriver, clock: ManualClock, cells: list[Cell]
) -> dict[Cell, tuple[str, int]]:
    """For each cell a job of its own in that situation, and the fence to show."""
    shown: dict[Cell, tuple[str, int]] = {}
    for number, (name, situation) in enumerate(SITUATIONS.items()):
        here = [cell for cell in cells if cell.situation == name]
        job_ids = [f"{number}-{place}" for place in range(len(here))]
        fences = situation.stage(driver, job_ids, f"queue-{number}")
        for cell, job_id in zip(here, job_ids, strict=True):
            fence = fences[job_id]
            shown[cell] = (job_id, fence if cell.current else fence + 1_000_000)
    clock.advance(SHORT)
    return shown


def _seen(driver: InspectableDriver, job_ids: list[str]) -> dict[str, object]:
    """All that can be seen of these jobs without asking for each."""
    jobs = {job.id: job for job in all_pages(driver, limit=500)}
    results = driver.results(job_ids)
    return {
        job_id: (jobs.get(job_id), result) for job_id, result in zip(job_ids, results, strict=True)
    }


class VerdictRules(Suite):
    def test_verdict_of_every_settle_in_bulk(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        shown = _stage(driver, clock, _table(*OUTCOMES, guards=tuple(Guard)))
        job_ids = [job_id for job_id, _ in shown.values()]
        before = _seen(driver, job_ids)
        settlements = [
            OUTCOMES[cell.outcome](*lease)._replace(guard=cell.guard)
            for cell, lease in shown.items()
        ]
        settled = dict(zip(shown, settle(driver, *settlements), strict=True))

        assert {cell: settled[cell].verdict for cell in shown} == {
            cell: cell.verdict() for cell in shown
        }
        after = _seen(driver, job_ids)
        changed = {job_id for job_id in job_ids if before[job_id] != after[job_id]}
        assert changed == {
            job_id for cell, (job_id, _) in shown.items() if cell.verdict() is Verdict.APPLIED
        }
        now = {
            job_id: result and result.state
            for job_id, result in zip(job_ids, driver.results(job_ids), strict=True)
        }
        assert {cell: settled[cell].state for cell in shown} == {
            cell: now[job_id] for cell, (job_id, _) in shown.items()
        }

    def test_verdict_of_every_settle_alone(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        shown = _stage(driver, clock, _table("succeed", "retry", "release"))
        verdicts = {
            cell: settle(driver, OUTCOMES[cell.outcome](*lease))[0].verdict
            for cell, lease in shown.items()
        }
        assert verdicts == {cell: cell.verdict() for cell in shown}

    def test_verdict_of_every_extend(self, driver: InspectableDriver, clock: ManualClock) -> None:
        shown = _stage(driver, clock, _table("extend"))
        job_ids = [job_id for job_id, _ in shown.values()]
        before = _seen(driver, job_ids)
        renewals = [Renewal(*lease, progress=b"new", saved=b"new") for lease in shown.values()]
        extended = dict(zip(shown, driver.extend(HOLDER, renewals, LONG), strict=True))
        assert extended == {
            cell: Extended(cell.verdict(), clock.now() + LONG)
            if cell.verdict() is Verdict.APPLIED
            else Extended(cell.verdict())
            for cell in shown
        }
        after = _seen(driver, job_ids)
        assert {job_id for job_id in job_ids if before[job_id] != after[job_id]} == {
            shown[Cell("valid", True, "extend")][0]
        }

    def test_the_same_settlement_twice_in_one_call(self, driver: InspectableDriver) -> None:
        fences = _reserved(driver, ["a", "b"], "default")
        done = OUTCOMES["succeed"]("a", fences["a"])
        back = OUTCOMES["retry"]("b", fences["b"])
        assert settle(driver, done, back, done, back) == [
            Settled(Verdict.APPLIED, State.SUCCEEDED),
            Settled(Verdict.APPLIED, State.READY),
            Settled(Verdict.ALREADY, State.SUCCEEDED),
            Settled(Verdict.NOT_RUNNING, State.READY),
        ]
        assert len(get(driver, "b").history) == 1

    def test_two_endings_of_one_attempt_in_one_call(self, driver: InspectableDriver) -> None:
        (lease,) = _reserved(driver, ["a"], "default").items()
        first, second = OUTCOMES["succeed"](*lease), OUTCOMES["die"](*lease)
        verdicts = [one.verdict for one in settle(driver, first, second)]
        assert verdicts == [Verdict.APPLIED, Verdict.ALREADY]
        assert get(driver).state is State.SUCCEEDED

    def test_fences_that_were_never_given_are_a_mismatch(self, driver: InspectableDriver) -> None:
        _reserved(driver, ["running"], "q1")
        _ended("succeed")(driver, ["done"], "q2")
        impossible = [0, -1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 + 1, -(2**63) - 1, 10**30]
        for job_id in ("running", "done"):
            before = get(driver, job_id)
            settled = settle(driver, *(OUTCOMES["succeed"](job_id, fence) for fence in impossible))
            assert {one.verdict for one in settled} == {Verdict.MISMATCH}
            renewals = [Renewal(job_id, fence) for fence in impossible]
            extended = driver.extend(HOLDER, renewals, LONG)
            assert {one.verdict for one in extended} == {Verdict.MISMATCH}
            assert get(driver, job_id) == before


# --- the states table ---------------------------------------------------------------------------

STAGES: dict[State, Callable[..., Fences]] = {
    State.SCHEDULED: _scheduled,
    State.READY: _waiting,
    State.RUNNING: _reserved,
    State.SUCCEEDED: _ended("succeed"),
    State.DEAD: _ended("die"),
    State.CANCELLED: _ended("cancel"),
}
EXPIRY = 60.0


def _attempt(
    driver: InspectableDriver, clock: ManualClock, move: Move, job_id: str, fence: int
) -> None:
    """Do what makes this move where it is legal. The job is alone in the queue ``job_id``."""
    match move:
        case Move.RESERVE:
            take(driver, queue=job_id)
        case Move.PROMOTE:
            clock.advance(EXPIRY / 2)
            driver.promote(1000)
        case Move.EXPIRE:
            clock.advance(EXPIRY)
            driver.promote(1000)
            take(driver, queue=job_id)
        case Move.OPERATOR_CANCEL:
            driver.cancel([job_id])
        case Move.REQUEUE:
            driver.requeue([job_id], states=frozenset(State))
        case _:
            settle(driver, OUTCOMES[move.value](job_id, fence))


class StateRules(Suite):
    def test_only_the_moves_of_the_states_table_happen(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        for move in MOVES.keys() - FLOW_MOVES:
            for state, stage in STAGES.items():
                job_id = f"{move}-{state}"
                fence = stage(driver, [job_id], job_id, expires_in=EXPIRY)[job_id]
                before = get(driver, job_id)
                assert before.state is state
                _attempt(driver, clock, move, job_id, fence)
                after = get(driver, job_id)
                if state in MOVES[move]:
                    assert after.state in MOVES[move][state], f"{move} from {state}"
                    assert after != before, f"{move} from {state} did nothing"
                else:
                    assert after == before, f"{move} from {state} is no move"

"""The suite itself: nothing in it hides, and it finds what is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import shoebox
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from shoebox import Card, Shoebox

from taskharbor import conformance
from taskharbor.clock import ManualClock
from taskharbor.conformance.machine import DriverMachine
from taskharbor.lease import Verdict
from taskharbor.states import State

PARTS = (
    conformance.Conformance,
    conformance.Shared,
    conformance.Durable,
    conformance.Transactional,
    conformance.Migrates,
)


def test_no_rule_hides_another_of_the_same_name() -> None:
    """The parts are classes that one test class inherits from: a second rule of the same name
    would silently not run."""
    bases = {base for part in PARTS for base in part.__mro__}
    names = [name for base in bases for name in vars(base) if name.startswith("test_")]
    assert len(names) > 200
    assert sorted(names) == sorted(set(names))


# --- wrong drivers, one fault each --------------------------------------------------------------

Fault = Callable[[pytest.MonkeyPatch], None]


def _fences_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    right = shoebox._judge

    def wrong(card: Card, fence: int, now: float, **how: Any) -> Verdict:
        verdict = right(card, fence, now, **how)
        running = card.job.state is State.RUNNING
        return Verdict.APPLIED if running and verdict is Verdict.MISMATCH else verdict

    patch.setattr(shoebox, "_judge", wrong)


def _expiry_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    right = shoebox._judge

    def wrong(card: Card, fence: int, now: float, **how: Any) -> Verdict:
        verdict = right(card, fence, now, **how)
        return Verdict.APPLIED if verdict is Verdict.EXPIRED else verdict

    patch.setattr(shoebox, "_judge", wrong)


def _after_ending(change: Callable[[Card, Card], None]) -> Fault:
    """A driver that does ``change(before, card)`` after an attempt has ended."""

    def fault(patch: pytest.MonkeyPatch) -> None:
        right = Shoebox._end_attempt

        def wrong(self: Shoebox, card: Card, *how: Any) -> None:
            before = replace(card)
            right(self, card, *how)
            change(before, card)

        patch.setattr(Shoebox, "_end_attempt", wrong)

    return fault


def _a_release_is_charged(before: Card, card: Card) -> None:
    card.change(attempts=before.job.attempts)


def _losses_are_not_counted(before: Card, card: Card) -> None:
    card.change(losses=before.job.losses)


def _history_is_lost(before: Card, card: Card) -> None:
    card.change(history=())


def _the_error_is_lost(before: Card, card: Card) -> None:
    card.change(error=None)


def _unknown_since_is_forgotten(before: Card, card: Card) -> None:
    card.unknown_since = None


def _a_job_loses_its_place(before: Card, card: Card) -> None:
    card.place += 1000


def _the_settled_fence_is_forgotten(before: Card, card: Card) -> None:
    card.settled_fence = None


def _without(attribute: str) -> Fault:
    """A driver that forgets what it keeps there before every step."""

    def fault(patch: pytest.MonkeyPatch) -> None:
        right = Shoebox._step

        def wrong(self: Shoebox) -> Any:
            getattr(self, attribute).clear()
            return right(self)

        patch.setattr(Shoebox, "_step", wrong)

    return fault


def _instead(name: str, wrong: Callable[..., Any], where: object = shoebox) -> Fault:
    def fault(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(where, name, wrong)

    return fault


def _a_lease_is_shortened(patch: pytest.MonkeyPatch) -> None:
    right = Shoebox._extend

    def wrong(self: Shoebox, renewal: Any, seconds: float, now: float) -> Any:
        extended = right(self, renewal, seconds, now)
        if extended.verdict is not Verdict.APPLIED:
            return extended
        self._cards[renewal.job_id].change(lease_expires_at=now + seconds)
        return extended._replace(lease_expires_at=now + seconds)

    patch.setattr(Shoebox, "_extend", wrong)


def _a_requeue_keeps_the_result(patch: pytest.MonkeyPatch) -> None:
    right = Shoebox.requeue

    def wrong(self: Shoebox, job_ids: Any, **how: Any) -> Any:
        results = {card.job.id: card.job.result for card in self._cards.values()}
        verdicts = right(self, job_ids, **how)
        for card in self._cards.values():
            card.change(result=results[card.job.id])
        return verdicts

    patch.setattr(Shoebox, "requeue", wrong)


def _a_fence_is_given_twice(patch: pytest.MonkeyPatch) -> None:
    right = Shoebox._reserve

    def wrong(self: Shoebox, *how: Any) -> Any:
        self._last_fence = 0
        return right(self, *how)

    patch.setattr(Shoebox, "_reserve", wrong)


FAULTS: dict[str, Fault] = {
    "fences are not checked": _fences_are_not_checked,
    "expiry is not checked": _expiry_is_not_checked,
    "a release is charged": _after_ending(_a_release_is_charged),
    "losses are not counted": _after_ending(_losses_are_not_counted),
    "history is lost": _after_ending(_history_is_lost),
    "the error is lost": _after_ending(_the_error_is_lost),
    "unknown_since is forgotten": _after_ending(_unknown_since_is_forgotten),
    "a job loses its place": _after_ending(_a_job_loses_its_place),
    "the settled fence is forgotten": _after_ending(_the_settled_fence_is_forgotten),
    "tombstones are not kept": _without("_tombstones"),
    "the retired are forgotten": _without("_retired"),
    "a pause is forgotten": _without("_paused"),
    "keys are never free": _instead("_keeps_key", lambda card, now: True),
    "keys are always free": _instead("_keeps_key", lambda card, now: False),
    "everything is kept for ever": _instead("_kept_until", lambda card: float("inf")),
    "promote waits for the due time only": _instead("_next_moment", lambda card: card.job.due_at),
    "a lease is shortened": _a_lease_is_shortened,
    "a requeue keeps the result": _a_requeue_keeps_the_result,
    "a fence is given twice": _a_fence_is_given_twice,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_state_machine_finds(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)

    class Machine(DriverMachine):
        def __init__(self) -> None:
            clock = ManualClock()
            super().__init__(Shoebox("shoebox://", clock), clock)

        def teardown(self) -> None:
            """A faulty driver may not be able to empty itself, and is thrown away."""

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=2000,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
            ),
        )

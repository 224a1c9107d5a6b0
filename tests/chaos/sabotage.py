"""Guards, each to be switched off in the processes of a storm: the checker must notice.

Applied by ``inside`` before anything of ours runs, in every process that is started with exec.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def commit(name: str) -> None:
    """Switch off the guard of this name. Raises KeyError for one that is not known here."""
    SABOTAGES[name]()


def _no_fence_in_memory() -> None:
    """Whoever shows any fence has the lease."""
    from taskharbor.drivers.memory import store
    from taskharbor.lease import Verdict, judge

    def blind(state: Any, *, fence: int, current_fence: int, **facts: Any) -> Verdict:
        return judge(state, fence=current_fence, current_fence=current_fence, **facts)

    store.judge = blind  # type: ignore[attr-defined]


def _no_fence_in_redis() -> None:
    from taskharbor.drivers.redis import scripts

    real = scripts._read
    comparisons = (
        b"if fence ~= m.f then return 'mismatch', job end",
        b" or struct.unpack('>d', record, AT_FENCE) ~= fence",
        b"if fence ~= m.f then return {'mismatch', false, false} end",
    )
    missing = [each for each in comparisons if each not in real("exchange") + real("extend")]
    assert not missing, f"the scripts compare fences in another way now: {missing}"

    def blind(name: str) -> bytes:
        text = real(name)
        for comparison in comparisons:
            text = text.replace(comparison, b"")
        return text

    scripts._read = blind


def _no_unique_key() -> None:
    """Every message finds its key free."""
    from taskharbor.drivers.memory.keys import Keys

    Keys.owner = lambda self, now, message: None  # type: ignore[method-assign]


def _no_settlement_for_the_lost() -> None:
    """Maintenance says that it settled what a dead child held, and lets it lie."""
    from taskharbor.maintenance.service import Service

    def forget(self: Service, driver: Any) -> None:
        for number in list(self._lost):
            del self._lost[number]
            self._listeners.settled(number)

    Service._settle_lost = forget  # type: ignore[method-assign]


def _no_renewal_from_outside() -> None:
    """A child that falls silent is left to its lease."""
    from taskharbor.maintenance.service import Service

    Service._renew = lambda self, driver, silent: None  # type: ignore[method-assign]


def _no_edges_in_settle() -> None:
    """What ends tells nobody who waits for it."""
    from taskharbor.drivers.memory.flows import FlowKeeper

    FlowKeeper.note = lambda self, now, record: None  # type: ignore[method-assign]


SABOTAGES: dict[str, Callable[[], None]] = {
    "fence-memory": _no_fence_in_memory,
    "fence-redis": _no_fence_in_redis,
    "unique-key": _no_unique_key,
    "lost-child": _no_settlement_for_the_lost,
    "edges": _no_edges_in_settle,
    "external-renewal": _no_renewal_from_outside,
}

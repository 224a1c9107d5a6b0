"""What moves in flows when jobs have ended or came back: ``flow.progress``, done to rows.

``Tx.noted`` names the members that entered or left a terminal state in this transaction. Their
flows are told, their outgoing edges take their marks, the counters of the targets move by the
difference, targets are released, skipped or blocked, which notes them in turn: wave by wave, each
in a few statements however many jobs it has. What does not fit into a page becomes an errand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from taskharbor import defaults
from taskharbor.drivers.sqlite import flow_heads, operate
from taskharbor.drivers.sqlite.changes import Changes, Ending, Head
from taskharbor.drivers.sqlite.flow_store import KINDS
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Row, Tx, as_numbers
from taskharbor.flow.plan import FlowState
from taskharbor.flow.progress import Counters, Mark, Step, flow_state, stance, step
from taskharbor.states import Reason, State

_SQL = load("flow_moves")
_KEEP_SUCCESS = load("operate")["keep_success"]

LOOK = 20 * defaults.FLOW_PAGE
"""Jobs of a sealed flow that one page looks at to find those that need not wait."""

_NOTHING = Counters(0)
_SHIFTS: Final = {
    (number, old, new): _NOTHING.moved(kind, old, new)
    for number, kind in enumerate(KINDS)
    for old in Mark
    for new in Mark
}
_ENDS = (State.SUCCEEDED, State.DEAD, State.CANCELLED)


def advance(tx: Tx) -> int:
    """Move up to a page of what is noted and of what was left by others; how many edges and
    jobs. What stays noted is left as errands."""
    if not tx.noted and not tx.errands:
        return 0
    return _Walk(tx, defaults.FLOW_PAGE).run()


def remember(tx: Tx) -> None:
    """Leave all that is noted to later calls."""
    if tx.noted:
        _Walk(tx, 0).run()


class _Walk:
    """One call's share of the work."""

    def __init__(self, tx: Tx, budget: int) -> None:
        self._tx = tx
        self._left = self._budget = budget
        self._tallies: dict[int, Counter[str]] = {}

    def run(self) -> int:
        tx = self._tx
        self._follow_notes()
        while self._left > 0 and tx.errands > 0:
            self._run_errand()
            self._follow_notes()
        self._put_off(self._take_notes())
        changes = Changes(tx)
        for flow, tally in self._tallies.items():
            self._write_tally(changes, flow, tally)
        changes.flush()
        return self._budget - max(self._left, 0)

    # --- what is noted -------------------------------------------------------------------------

    def _follow_notes(self) -> None:
        while self._tx.noted and self._left > 0:
            sources = self._take_notes()
            rows = self._tx.all(_SQL["stale_edges"], (as_numbers(sources), self._left))
            if len(rows) < self._left:
                self._tx.execute(_SQL["mark_all"], (as_numbers(sources),))
            else:
                self._mark(rows)
                last = rows[-1]
                rest = sources[sources.index(last[0]) :]
                self._put_off(rest[1:])
                self._put_off(rest[:1], last[1], last[2])
            self._move(rows)

    def _take_notes(self) -> list[int]:
        """Tell the flows; the members whose edges are to be looked at."""
        noted, self._tx.noted = self._tx.noted, []
        changes: dict[tuple[State | None, State | None], list[int]] = {}
        for seq, old, new in noted:
            changes.setdefault((old, new), []).append(seq)
        for (old, new), members in changes.items():
            seqs = as_numbers(members)
            errbacks = self._tally(seqs, old, new)
            if errbacks and new is not None:
                # What they watch may have come back to life while they ran.
                self._step(seq for (seq,) in self._tx.all(_SQL["errbacks"], (seqs,)))
        return list(dict.fromkeys(seq for seq, _, _ in noted))

    def _tally(self, seqs: str, old: State | None, new: State | None) -> int:
        """How many of them are error callbacks."""
        errbacks = 0
        for flow, tolerated, jobs, watching in self._tx.all(_SQL["groups"], (seqs,)):
            errbacks += watching
            tally = self._tallies.setdefault(flow, Counter())
            for state, change in ((old, -jobs), (new, jobs)):
                if state is not None:
                    tally[state] += change
                    if state is not State.SUCCEEDED and not tolerated:
                        tally["failed"] += change
        return errbacks

    def _put_off(self, sources: Sequence[int], target: int = 0, position: int = -1) -> None:
        if sources:
            for seq, flow in self._tx.all(_SQL["flows_of"], (as_numbers(sources),)):
                flow_heads.add_errand(self._tx, flow, seq, target, position)

    # --- errands -------------------------------------------------------------------------------

    def _run_errand(self) -> None:
        row = self._tx.one(_SQL["next_errand"])
        assert row is not None
        num, flow, source, target, position, cancel_reason = row
        if source:
            place = self._walk_edges(source, target, position)
        elif cancel_reason is None:
            place = self._walk_sealed(flow, target)
        else:
            place = self._walk_cancelled(flow, target, Reason(cancel_reason))
        if place is not None:
            self._tx.execute(_SQL["put_on"], (*place, num))
        else:
            self._tx.execute(_SQL["strike"], (num,))
            self._tx.errands -= 1
            self._tallies.setdefault(flow, Counter())
        self._left -= 1

    def _walk_edges(self, source: int, target: int, position: int) -> tuple[int, int] | None:
        """Where to go on, None at the end."""
        rows = self._tx.all(_SQL["stale_after"], (source, target, position, self._left))
        full = len(rows) == self._left
        self._mark(rows)
        self._move(rows)
        return rows[-1][1:3] if full else None

    def _walk_sealed(self, flow: int, first: int) -> tuple[int, int] | None:
        rows = self._tx.all(_SQL["decided"], (flow, first, first + LOOK, self._left))
        full = len(rows) == self._left
        self._left -= len(rows)
        self._step(row[1] for row in rows)
        if full:
            return rows[-1][0] + 1, 0
        return (first + LOOK, 0) if self._is_in(flow, first + LOOK) else None

    def _is_in(self, flow: int, index: int) -> bool:
        return self._tx.one(_SQL["unfinished"], (flow, index, 1)) is not None

    def _walk_cancelled(self, flow: int, first: int, reason: Reason) -> tuple[int, int] | None:
        rows = self._tx.all(_SQL["unfinished"], (flow, first, self._left))
        full = len(rows) == self._left
        self._left -= len(rows)
        going = [row for row in rows if not row[4]]
        operate.cancel(self._tx, [row[2] for row in going if row[3]], reason)
        self._step(row[1] for row in going if not row[3])
        return (rows[-1][0] + 1, 0) if full else None

    # --- edges and jobs ------------------------------------------------------------------------

    def _mark(self, rows: Sequence[Row]) -> None:
        self._tx.executemany(_SQL["mark"], [(row[5], *row[:3]) for row in rows])

    def _move(self, rows: Sequence[Row]) -> None:
        """The counters of the targets, and the targets."""
        if not rows:
            return
        self._left -= len(rows)
        shifts: dict[int, Counters] = {}
        for _, target, _, kind, old, new in rows:
            pending, spoiled = _SHIFTS[kind, old, new]
            before = shifts.get(target, _NOTHING)
            shifts[target] = Counters(before.pending + pending, before.spoiled + spoiled)
        self._tx.executemany(_SQL["shift"], [(*shift, target) for target, shift in shifts.items()])
        self._step(shifts)

    def _step(self, seqs: Iterable[int]) -> None:
        steps = _Steps(self._tx)
        for row in self._tx.all(_SQL["places"], (as_numbers(seqs),)):
            steps.take(row)
        steps.flush()

    # --- flows ---------------------------------------------------------------------------------

    def _write_tally(self, changes: Changes, flow: int, tally: Counter[str]) -> None:
        tx = self._tx
        row = tx.one(_SQL["tally"], (*(tally[key] for key in (*_ENDS, "failed")), flow))
        if row is None:
            return  # it was pruned
        flow_id, sealed, doomed, open_jobs, failed, cancel_reason, finished_at, *rest = row
        *keep, parent = rest
        if not sealed or doomed:
            return
        if open_jobs or (tx.errands and tx.one(_SQL["has_errands"], (flow,)) is not None):
            if finished_at is not None:
                tx.execute(_SQL["reopen"], (flow,))
            return
        if finished_at is None:
            finished_at = tx.now
            if parent is not None:
                self._wake_parent(changes, parent, flow_id)
        state = flow_state(
            sealed=True, open_nodes=0, failed=failed, cancelled=cancel_reason is not None
        )
        kept = keep[(FlowState.SUCCEEDED, FlowState.CANCELLED, FlowState.FAILED).index(state)]
        tx.execute(_SQL["end"], (finished_at, finished_at + kept, flow))

    def _wake_parent(self, changes: Changes, parent: str, flow_id: str) -> None:
        row = self._tx.one(_SQL["waiting_parent"], (parent, flow_id))
        if row is not None:
            job = Head._make(row)
            changes.leave_blocked(job)
            changes.to_line(job, str(Reason.UNBLOCKED), due_at=self._tx.now)
            self._tx.execute(_SQL["due_now"], (self._tx.now, job.seq))
            self._tx.wake()


class _Steps:
    """What targets do when their counters have moved, collected and then written."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._changes = Changes(tx)
        self._released: list[Row] = []
        self._blocked: list[int] = []
        self._expiries: list[Row] = []

    def take(self, row: Row) -> None:
        """A row of ``places``."""
        pending, spoiled, released, errback, *times, cancel_reason, state, reason, attempts = row[
            :12
        ]
        job = Head(*row[12:])
        cancelled = cancel_reason is not None
        wanted = stance(Counters(pending, spoiled), errback=bool(errback), cancelled=cancelled)
        now = State(state)
        match step(now, Reason(reason), wanted, released=bool(released), errback=bool(errback)):
            case Step.RELEASE:
                self._leave(job, now)
                self._release(job, times)
            case Step.SKIP:
                self._leave(job, now)
                ending = Ending(State.CANCELLED, str(Reason.UPSTREAM), attempts)
                self._changes.to_end(job, ending)
                self._tx.wake()
            case Step.BLOCK:
                self._leave(job, now)
                self._changes.to_blocked(job, str(Reason.UPSTREAM))
                self._blocked.append(job.seq)
            case Step.STAY:
                pass

    def _leave(self, job: Head, state: State) -> None:
        if state is State.BLOCKED:
            self._changes.leave_blocked(job)
            return
        if state is State.SUCCEEDED:
            self._tx.execute(_KEEP_SUCCESS, (job.seq,))
        self._changes.leave_ended(job, state)

    def _release(self, job: Head, times: Sequence[float | None]) -> None:
        delay, eta, expires_in, expires_at = times
        now = self._tx.now
        due_at = max(now, eta) if eta is not None else now + (delay or 0.0)
        until = now + expires_in if expires_in is not None else expires_at
        self._released.append((due_at, job.seq))
        if until != job.expires_at:
            self._expiries.append((until, job.seq))
        job = job._replace(expires_at=until)
        self._changes.to_line(job, str(Reason.UNBLOCKED), due_at=due_at)
        self._tx.wake()

    def flush(self) -> None:
        tx = self._tx
        self._changes.flush()
        if self._expiries:
            tx.executemany(_SQL["expire_at"], self._expiries)
        if self._released:
            tx.executemany(_SQL["release"], self._released)
        if self._blocked:
            tx.execute(_SQL["take_back"], (as_numbers(self._blocked),))
        anew = self._blocked + [row[1] for row in self._released]
        if anew:
            tx.execute(_SQL["start_anew"], (as_numbers(anew),))

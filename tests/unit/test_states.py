"""The table of states and moves is sound in itself."""

import pytest

from taskharbor.settlement import Settlement
from taskharbor.states import MOVES, STARTS, TERMINAL, WAITING, Move, State

OUTCOMES = (Move.SUCCEED, Move.RETRY, Move.DIE, Move.CANCEL, Move.RELEASE, Move.SNOOZE)


def _next_states(state: State) -> set[State]:
    return {end for moves in MOVES.values() for end in moves.get(state, ())}


def _reachable(starts: frozenset[State]) -> set[State]:
    seen: set[State] = set()
    frontier = set(starts)
    while frontier:
        seen |= frontier
        frontier = {end for state in frontier for end in _next_states(state)} - seen
    return seen


def test_every_move_is_in_the_table() -> None:
    assert set(MOVES) == set(Move)
    assert all(ends for moves in MOVES.values() for ends in moves.values())


def test_waiting_running_and_terminal_are_all_there_is() -> None:
    assert WAITING | {State.RUNNING} | TERMINAL == set(State)
    assert not WAITING & TERMINAL
    assert {state for state in State if state.terminal} == TERMINAL


def test_every_state_can_be_reached_from_an_enqueue() -> None:
    assert _reachable(STARTS) == set(State)


@pytest.mark.parametrize("state", State)
def test_every_job_can_come_to_an_end(state: State) -> None:
    assert _reachable(frozenset({state})) & TERMINAL


def test_only_a_requeue_leaves_a_terminal_state_and_what_follows_from_it_in_a_flow() -> None:
    leaving = {move for move, moves in MOVES.items() if TERMINAL & set(moves)}
    assert leaving == {Move.REQUEUE, Move.REVIVE}
    assert set(MOVES[Move.REQUEUE]) == TERMINAL
    assert set(MOVES[Move.REQUEUE].values()) == {STARTS}


def test_only_a_reserve_starts_a_job() -> None:
    starting = {
        move
        for move, moves in MOVES.items()
        for state, ends in moves.items()
        if State.RUNNING in ends and state is not State.RUNNING
    }
    assert starting == {Move.RESERVE}
    assert MOVES[Move.RESERVE] == {State.READY: {State.RUNNING}}


@pytest.mark.parametrize("move", OUTCOMES)
def test_an_outcome_ends_only_a_running_job(move: Move) -> None:
    assert set(MOVES[move]) == {State.RUNNING}
    assert State.RUNNING not in MOVES[move][State.RUNNING]


@pytest.mark.parametrize(
    "settlement",
    [
        Settlement.succeed("a", 1, None),
        Settlement.retry("a", 1, delay=0, error=None),
        Settlement.retry("a", 1, delay=5, error=None),
        Settlement.die("a", 1, error=None),
        Settlement.cancel("a", 1),
        Settlement.release("a", 1),
        Settlement.release("a", 1, loss=True),
        Settlement.snooze("a", 1, delay=0),
        Settlement.snooze("a", 1, delay=5, unknown=True),
    ],
    ids=lambda settlement: f"{settlement.move}-{settlement.delay}",
)
@pytest.mark.parametrize("cancel_requested", [False, True])
def test_a_settlement_lands_where_the_table_allows(
    settlement: Settlement, cancel_requested: bool
) -> None:
    end = settlement.lands_in(cancel_requested=cancel_requested)
    assert end in MOVES[settlement.move][State.RUNNING]
    assert settlement.terminal == (settlement.lands_in(cancel_requested=False) in TERMINAL)


def test_all_landings_of_the_table_are_landings_of_settlements() -> None:
    landings: dict[Move, set[State]] = {move: set() for move in OUTCOMES}
    for cancel_requested in (False, True):
        for delay in (0.0, 5.0):
            for settlement in (
                Settlement.succeed("a", 1, None),
                Settlement.retry("a", 1, delay=delay, error=None),
                Settlement.die("a", 1, error=None),
                Settlement.cancel("a", 1),
                Settlement.release("a", 1),
                Settlement.snooze("a", 1, delay=delay),
            ):
                end = settlement.lands_in(cancel_requested=cancel_requested)
                landings[settlement.move].add(end)
    assert landings == {move: set(MOVES[move][State.RUNNING]) for move in OUTCOMES}

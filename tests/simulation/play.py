"""Kinds of histories, and how one is played.

The same seed takes the same steps. Most histories are small: few jobs, all failures that fit in;
what breaks a promise at all most often breaks it with three jobs, and is five times as soon over.
"""

from __future__ import annotations

from tests.simulation.broken import Broken
from tests.simulation.history import Chaos, History, Tally
from tests.simulation.network import Weather

KINDS: dict[str, Chaos] = {
    "calm": Chaos(),
    "lost_replies": Chaos(weather=Weather(lost_request=0.05, lost_reply=0.1)),
    "late_requests": Chaos(weather=Weather(lost_reply=0.05, late_request=0.15)),
    "kills": Chaos(kills=3),
    "host_losses": Chaos(host_losses=2, kills=1),
    "suspensions": Chaos(suspensions=3),
    "starved_heartbeats": Chaos(starvations=3),
    "outages": Chaos(weather=Weather(lost_reply=0.1), outages=3),
    "terminations": Chaos(terminations=4),
    "cancels": Chaos(cancels=5, kills=1),
    "flows": Chaos(weather=Weather(lost_reply=0.05), chords=4, kills=2, terminations=1),
    "everything": Chaos(
        weather=Weather(lost_request=0.03, lost_reply=0.05, late_request=0.03),
        kills=2,
        host_losses=1,
        suspensions=2,
        starvations=1,
        outages=1,
        terminations=2,
        cancels=2,
        chords=1,
    ),
}
NOTHING_EXPIRES = {"calm", "lost_replies", "late_requests", "terminations", "kills", "cancels"}
"""Where every child runs or is known to be dead, nothing may wait for a lease to run out."""
LARGE, SMALL = 30, 3
"""Jobs in a history."""
SMALL_FOR_EACH_LARGE = 10


def play(kind: str, seed: int, *, jobs: int = LARGE) -> Tally:
    """Raises Broken, which says how to play that history again."""
    chaos = KINDS[kind]
    history = History(seed, chaos, jobs=jobs, slots=3 if seed % 3 == 2 else 1)
    try:
        history.run()
        if kind in NOTHING_EXPIRES and history.checker.reaped:
            raise Broken(f"{history.checker.reaped} leases ran out")
    except Broken as broken:
        size = "small" if jobs == SMALL else "large"
        again = (
            f"pytest tests/simulation --first-seed {seed} --histories 1 -k 'history and "
            f"{size} and {kind}'"
        )
        raise Broken(f"{broken}; to replay: {again}") from broken
    return history.tally


def play_many(kind: str, first_seed: int, count: int, *, jobs: int = LARGE) -> Tally:
    total = Tally()
    for seed in range(first_seed, first_seed + count):
        total = total.plus(play(kind, seed, jobs=jobs))
    return total

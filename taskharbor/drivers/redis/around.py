"""An exchange over several shards: what belongs together is sent to all of them at once.

    1  every settlement to its shard, and the want to the shard whose turn it is
    2  if that gave too little: a look at the others, then a share of the rest to those with jobs

Each shard's part is a step of its own: a failure leaves those done that were.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.drivers.base import Exchange, Settled, Want
from taskharbor.drivers.redis import wire
from taskharbor.drivers.redis.store import Store
from taskharbor.lease import Reservation
from taskharbor.settlement import Settlement


class Around:
    """One exchange. ``turns``: the shards, in the order in which they are asked for jobs."""

    def __init__(self, store: Store, holder: str, turns: Sequence[int]) -> None:
        self._store = store
        self._holder = holder
        self._turns = turns
        self._reserved: list[Reservation] = []
        self._more = False
        self._retired = False
        self._now = 0.0

    def exchange(self, settlements: Sequence[Settlement], want: Want | None) -> Exchange:
        """Raises StoreErrors."""
        places: dict[int, list[int]] = {}
        for place, one in enumerate(settlements):
            places.setdefault(self._store.shard_of(one.job_id), []).append(place)
        steps: dict[int, tuple[list[Settlement], Want | None]] = {
            shard: ([settlements[place] for place in mine], None) for shard, mine in places.items()
        }
        first = None
        if want is not None or not steps:
            # Without a job to settle or to reserve there is only the time to be asked.
            first = next((shard for shard in self._turns if self._may_ask(shard, places)), 0)
            steps[first] = (steps[first][0] if first in steps else [], want)
        settled: dict[int, Settled] = {}
        for shard, answers in self._run(steps).items():
            settled.update(zip(places.get(shard, ()), answers, strict=True))
        if want is not None and not self._retired:
            self._reserve(want, [shard for shard in self._turns if shard != first])
        verdicts = [settled[place] for place in range(len(settlements))]
        return Exchange(verdicts, self._reserved, self._now, self._more, self._retired)

    def _may_ask(self, shard: int, places: dict[int, list[int]]) -> bool:
        return shard in places or self._store.is_up(shard)

    def _reserve(self, want: Want, others: list[int]) -> None:
        """What is still missing, from shards that have jobs."""
        left = want.limit - len(self._reserved)
        if left <= 0:
            return
        look = wire.pack((want.queues, False, 0))
        up = {shard: look for shard in others if self._store.is_up(shard)}
        looks = self._store.run_each("listen", up)
        ready = [shard for shard in others if shard in looks and wire.unpack(looks[shard])]
        while ready and left > 0:
            some, ready = ready[:left], ready[left:]
            share = want._replace(limit=left // len(some))
            self._run({shard: ([], share) for shard in some})
            left = want.limit - len(self._reserved)
        self._more = self._more or bool(ready)

    def _run(
        self, steps: dict[int, tuple[list[Settlement], Want | None]]
    ) -> dict[int, list[Settled]]:
        requests = {
            shard: wire.pack_exchange(self._holder, mine, want, shard, len(self._turns))
            for shard, (mine, want) in steps.items()
        }
        answers: dict[int, list[Settled]] = {}
        for shard, reply in self._store.run_each("exchange", requests).items():
            exchange = wire.exchanged(reply)
            answers[shard] = exchange.settled
            self._reserved += exchange.reserved
            self._more = self._more or exchange.more
            self._retired = self._retired or exchange.retired
            self._now = max(self._now, exchange.now)
        return answers

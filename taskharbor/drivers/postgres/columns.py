"""From messages and settlements to the columns that the functions take.

Most batches are of one task with the same options: a column with one value in every row travels as
an array of one. A list for Postgres must not mix int and float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskharbor.drivers.postgres.arrays import Bigints, Blobs, Texts
from taskharbor.lease import Guard
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Move

_MAX_BIGINT = (1 << 63) - 1
_UNTIL_TERMINAL = -1.0
_VALID = frozenset({Guard.VALID})


def of_messages(batch: Sequence[Message]) -> dict[str, Any]:
    """The arguments of the statement ``enqueue``, but for ``now`` and ``always``."""
    (ids, tasks, bodies, digests, queues, priorities, delays, etas, expires_in, expires_at, keys,
     key_until, retentions) = zip(*batch, strict=True)  # fmt: skip
    return {
        "ids": Texts(ids),
        "tasks": _column(tasks),
        "bodies": Blobs(bodies),
        "digests": Blobs(_column(digests)),
        "queues": _column(queues),
        "priorities": _column(priorities),
        "delays": [float(delay) for delay in _column(delays)],
        "etas": _nullable(etas),
        "expires_in": _nullable(expires_in),
        "expires_at": _nullable(expires_at),
        "keeps": [float(seconds) for three in _column(retentions) for seconds in three],
        "keys": [] if _all_none(keys) else list(keys),
        "key_seconds": [] if _all_none(keys) else [_key_seconds(until) for until in key_until],
    }


def of_message(message: Message) -> dict[str, Any]:
    """The arguments of the statement ``enqueue_one``, but for ``now``."""
    keeps = message.retention
    return {
        "id": message.id,
        "task": message.task,
        "body": message.body,
        "digest": message.digest,
        "queue": message.queue,
        "priority": message.priority,
        "delay": float(message.delay),
        "eta": message.eta,
        "expires_in": message.expires_in,
        "expires_at": message.expires_at,
        "keep_succeeded": float(keeps.succeeded),
        "keep_cancelled": float(keeps.cancelled),
        "keep_dead": float(keeps.dead),
    }


def of_settlements(settlements: Sequence[Settlement]) -> dict[str, Any]:
    """The arguments of the statement ``exchange`` that say what to settle."""
    if not settlements:
        return _NOTHING
    (ids, fences, moves, reasons, delays, results, errors, losses, unknowns, guards, awaits) = zip(
        *settlements, strict=True
    )
    successes = moves.count(Move.SUCCEED)
    columns = {
        **_NOTHING,
        "quick": len(set(ids)) == len(ids),
        "ids": of_ids(ids),
        "fences": of_fences(fences),
        "results": Blobs(results),
    }
    if successes < len(moves) or not columns["quick"] or not _VALID.issuperset(guards):
        columns |= {
            "moves": list(moves),
            "reasons": list(reasons),
            "delays": [float(delay) for delay in delays],
            "errors": Blobs(errors),
            "losses": list(losses),
            "unknowns": list(unknowns),
            "guards": list(guards),
            "awaits": None if _all_none(awaits) else list(awaits),
        }
    return columns


_NOTHING: dict[str, Any] = {"quick": False} | dict.fromkeys(
    ("ids", "fences", "results", "moves", "reasons", "delays", "errors", "losses", "unknowns",
     "guards", "awaits")
)  # fmt: skip


def of_ids(names: Sequence[str]) -> Texts:
    """Job ids or queues as Postgres can hold them; "" (nobody's) for what no store would hold."""
    return Texts([name if name.isprintable() else "" for name in names])


def of_id(name: str) -> str:
    """One, as ``of_ids`` has them."""
    return name if name.isprintable() else ""


def of_filter(name: str | None) -> str | None:
    """The same of a queue or a task to look for; None: whichever."""
    return None if name is None else of_id(name)


def of_fences(fences: Sequence[int]) -> Bigints:
    return Bigints([fence if 0 <= fence <= _MAX_BIGINT else -1 for fence in fences])


def _column(values: Sequence[Any]) -> Sequence[Any]:
    first = values[0]
    return [first] if values.count(first) == len(values) else list(values)


def _all_none(values: Sequence[Any]) -> bool:
    return values.count(None) == len(values)


def _nullable(values: Sequence[float | None]) -> list[float | None]:
    if _all_none(values):
        return []
    return [None if value is None else float(value) for value in values]


def _key_seconds(key_until: str | float) -> float | None:
    if isinstance(key_until, str):
        return _UNTIL_TERMINAL if key_until == "terminal" else None
    return float(key_until)

"""A process that uses a store as a worker does, until it is killed:

    python -m tests.drivers.sqlite.churn URL NAME

Prints one line per acknowledged step, so that the test knows what must be in the file. Jobs named
"kept" are kept when they succeed, "brief" ones are not.
"""

from __future__ import annotations

import random
import sys

from taskharbor.drivers.base import Want
from taskharbor.drivers.sqlite import connect
from taskharbor.message import Message, Retention
from taskharbor.settlement import Settlement
from taskharbor.states import Move


def main(url: str, name: str) -> None:
    driver = connect(url)
    rng = random.Random(name)
    settlements: list[Settlement] = []
    number = 0
    while True:
        kinds = rng.choices(("kept", "brief"), (2, 1), k=rng.randrange(1, 20))
        ids = [f"{kind}-{name}-{number + offset}" for offset, kind in enumerate(kinds)]
        number += len(ids)
        driver.enqueue([_message(job_id, rng) for job_id in ids])
        print("enqueued", *ids, flush=True)
        reserved = driver.exchange(name, settlements, Want(("q1", "q2"), 16, 30.0)).reserved
        for word, move in (("succeeded", Move.SUCCEED), ("dead", Move.DIE)):
            print(word, *(one.job_id for one in settlements if one.move is move), flush=True)
        settlements = [_settlement(job.id, job.fence, rng) for job in reserved]
        driver.promote(100)
        driver.prune(100)


def _message(job_id: str, rng: random.Random) -> Message:
    return Message(
        id=job_id,
        task="churn",
        body=rng.randbytes(rng.choice((50, 50, 5000))),
        queue=rng.choice(("q1", "q2")),
        priority=rng.choice((0, 0, 5)),
        delay=rng.choice((0, 0, 0.01)),
        idempotency_key=rng.choice((None, job_id)),
        retention=Retention(succeeded=0.0 if job_id.startswith("brief") else 3600.0),
    )


def _settlement(job_id: str, fence: int, rng: random.Random) -> Settlement:
    match rng.randrange(10):
        case 0:
            return Settlement.retry(job_id, fence, delay=rng.choice((0, 0.01)), error=b"error")
        case 1:
            return Settlement.die(job_id, fence, error=b"error")
        case 2:
            return Settlement.release(job_id, fence)
        case _:
            return Settlement.succeed(job_id, fence, b"result")


if __name__ == "__main__":
    main(*sys.argv[1:])

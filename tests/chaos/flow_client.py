"""Stores the flows of one seed and prints their ids; others may do so at the same time, and
somebody may kill it as it does.

python -m tests.chaos.flow_client URL SEED JOBS
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from taskharbor import defaults
from taskharbor.errors import StoreError
from taskharbor.flow.storing import flows_of
from tests.chaos.flow_shapes import LATE_SECONDS, draw_failing, draw_flow, draw_late
from tests.chaos.tasks import app

STORING = "storing"
"""Printed when all is ready and the first part is about to go."""
PARTS = 8
"""In how many parts, about, a flow goes: more moments to die in."""
AGAIN_SECONDS = 0.1


def key_of(kind: str, seed: int) -> str:
    return f"{kind}-{seed}"


def main(url: str, seed: int, jobs: int) -> None:
    app.url = url
    defaults.BATCH = jobs // PARTS
    flows = {
        "mixed": (draw_flow(Random(seed), jobs).canvas, None),
        "failing": (draw_failing(), None),
        "late": (draw_late(), LATE_SECONDS),
    }
    _insist(lambda: flows_of(app).list_flows(limit=1))  # connected from here on
    print(STORING, flush=True)
    for kind, (canvas, expires) in flows.items():
        key = key_of(kind, seed)
        # Asking again under the same key is asking once.
        stored = _insist(partial(canvas.apply_async, idempotency_key=key, expires=expires))
        print(stored.id, flush=True)


def _insist(call: Callable[[], Any]) -> Any:
    """Until the store answers."""
    while True:
        try:
            return call()
        except StoreError:
            time.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

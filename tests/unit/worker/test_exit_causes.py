"""What the end of a child means for the jobs that it held."""

from __future__ import annotations

import signal

import pytest

from taskharbor.maintenance.lost import Cause
from taskharbor.worker.config import ExitCode
from taskharbor.worker.roster import Roster
from taskharbor.worker.table import ChildState, Phase, SlotState

STARTED = ChildState(100.0, (SlotState("job-1", 1, Phase.STARTED, 90.0, 95.0),))
FINISHED = ChildState(100.0, (SlotState("job-1", 1, Phase.FINISHED, 90.0, 95.0),))


@pytest.mark.parametrize(
    ("code", "state", "stopping", "cause"),
    [
        (ExitCode.OK, FINISHED, True, "ended"),
        (ExitCode.RECYCLED, FINISHED, False, "ended"),
        (ExitCode.FORCED, STARTED, True, "stop"),
        (ExitCode.HARD_LIMIT, STARTED, False, "limit"),
        (-signal.SIGKILL, STARTED, False, "died"),
        (-signal.SIGTERM, ChildState(100.0, ()), True, "ended"),
        # Here it was the task's code that ended the process.
        (ExitCode.OK, STARTED, False, "died"),
        (ExitCode.OK, STARTED, True, "died"),
        (ExitCode.FORCED, STARTED, False, "died"),
    ],
)
def test_an_exit_means(code: int, state: ChildState, stopping: bool, cause: Cause) -> None:
    roster: Roster[str] = Roster(1)
    child = roster.add("generation", 0.0)
    assert child is not None
    child.kill_at = 200.0 if stopping else None
    assert roster.remove(child, code, state, 101.0).cause == cause

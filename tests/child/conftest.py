from collections.abc import Iterator
from pathlib import Path

import pytest

from taskharbor.worker.shutdown import Shutdown
from tests.child.harness import Yard, open_yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with open_yard(tmp_path) as yard:
        yield yard


@pytest.fixture
def noted_stop(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> str:
    """The line that stands in the ledger once a child has heard SIGTERM, and reserves no more.

    A job that waits for it can't end before: how fast the signal arrives decides nothing.
    """
    stop = Shutdown.stop

    def note(self: Shutdown) -> None:
        stop(self)
        yard.ledger.write("stop")

    monkeypatch.setattr(Shutdown, "stop", note)
    return "stop"

"""The random histories of the conformance suite, with a look into the file after every step."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from taskharbor.clock import ManualClock
from taskharbor.conformance.machine import DriverMachine, profile
from taskharbor.drivers.sqlite import connect
from tests.drivers.sqlite.audit import audit


@pytest.mark.timeout(300)
def test_every_step_leaves_a_sound_file(path: Path, url: str) -> None:
    clock = ManualClock()
    driver = connect(url, clock=clock)

    class Machine(DriverMachine):
        def __init__(self) -> None:
            super().__init__(driver, clock)

        @invariant()
        def file_is_sound(self) -> None:
            audit(path)

    run_state_machine_as_test(Machine, settings=settings(profile(), max_examples=20))
    driver.close()

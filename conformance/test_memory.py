"""The memory driver: in this process, and served to others over a socket."""

import pytest

from taskharbor.conformance import Conformance, Harness
from taskharbor.ids import new_id


class TestMemory(Conformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness("memory://")


class TestMemoryServer(Conformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness(f"memory://{new_id()}?linger=0.1")

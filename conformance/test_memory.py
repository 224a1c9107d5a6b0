"""The memory driver: in this process, and served to others over a socket."""

import pytest

from taskharbor.conformance import Conformance, Flowing, Harness, Shared, SharedFlowing
from taskharbor.ids import new_id


class TestMemory(Conformance, Flowing):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness("memory://")


class TestMemoryServer(Conformance, Shared, SharedFlowing):
    URL = f"memory://{new_id()}?linger=5&timeout=60"

    @pytest.fixture
    def harness(self) -> Harness:
        # A server process for every test would cost more than all the tests.
        return Harness(self.URL, reuse=True)

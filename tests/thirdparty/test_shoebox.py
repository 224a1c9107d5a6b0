"""A driver that TaskHarbor has never heard of passes the whole suite."""

import pytest

from taskharbor.conformance import Conformance, Harness


class TestShoebox(Conformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness("shoebox://")

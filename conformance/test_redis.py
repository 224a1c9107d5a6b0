"""The Redis driver."""

import pytest

from taskharbor.conformance import Conformance, Harness
from taskharbor.ids import new_id


class TestRedis(Conformance):
    @pytest.fixture
    def harness(self, redis_url: str) -> Harness:
        return Harness(f"{redis_url}?namespace={new_id()}")

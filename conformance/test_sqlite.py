from pathlib import Path

import pytest

from taskharbor.conformance import Conformance, Harness


class TestSQLite(Conformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return Harness(f"sqlite:///{tmp_path}/jobs.db")

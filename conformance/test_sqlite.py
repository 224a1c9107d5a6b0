from pathlib import Path

import pytest

from taskharbor.conformance import Conformance, Durable, Harness, Migrates, Shared


class TestSQLite(Conformance, Shared, Durable, Migrates):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return Harness(f"sqlite:///{tmp_path}/jobs.db")

"""The conformance suite: what every driver must do, as tests that any driver can run.

Give a test class a fixture and the part that every driver runs, and add the parts that its
capabilities call for::

    from taskharbor.conformance import Conformance, Harness

    class TestMyDriver(Conformance):
        @pytest.fixture
        def harness(self, tmp_path):
            return Harness(f"mystore://{tmp_path}/jobs")

Needs pytest and Hypothesis: ``pip install 'taskharbor[conformance]'``.
"""

from __future__ import annotations

import pytest

# Before the parts are imported: a failing rule then shows both sides of its comparison.
pytest.register_assert_rewrite(
    "taskharbor.conformance.machine",
    "taskharbor.conformance.rules",
    "taskharbor.conformance.support",
)

from taskharbor.conformance.harness import Harness, empty  # noqa: E402
from taskharbor.conformance.machine import ModelRules  # noqa: E402


class Conformance(ModelRules):
    """What every driver must do."""


__all__ = ["Conformance", "Harness", "empty"]

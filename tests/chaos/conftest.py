"""The fixtures of the scenarios: chaos is a scenario that goes on for long."""

from tests.scenarios.conftest import app, url, worker

__all__ = ["app", "url", "worker"]

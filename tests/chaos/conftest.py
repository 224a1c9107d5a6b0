"""Which storms are run: ``--driver redis --seeds 200 --first-seed 1000``."""

from __future__ import annotations

import pytest

from tests.chaos.flow_storm import FLOW_SITES
from tests.chaos.sites import SITES
from tests.scenarios.conftest import app, url, worker

__all__ = ["app", "url", "worker"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    if "soak_site" in metafunc.fixturenames:
        metafunc.parametrize("soak_site", option("driver") or list(SITES))
    for name, sites in (("site", list(SITES)), ("flow_site", list(FLOW_SITES))):
        if {name, "seed"} <= set(metafunc.fixturenames):
            first = option("first_seed")
            seeds = range(first, first + option("seeds"))
            # One of each store after the other, so that a run that is cut short has seen all.
            cases = [(site, seed) for seed in seeds for site in option("driver") or sites]
            metafunc.parametrize((name, "seed"), cases)

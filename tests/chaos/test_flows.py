"""Flows under kill -9 of everybody who has to do with them, each from one seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.flow_storm import FlowPlan, FlowStorm


@pytest.mark.timeout(1800)
def test_killed_flows_end_as_they_must(
    flow_site: str, seed: int, long_form: bool, tmp_path: Path
) -> None:
    jobs, kills = (1000, 50) if long_form else (100, 5)
    plan = FlowPlan.draw(flow_site, seed, jobs=jobs, kills=kills)
    storm = FlowStorm(flow_site, plan, tmp_path)
    broken = storm.run()
    print(storm.report(broken))
    again = f"-k killed_flows --driver {flow_site} --first-seed {seed} --seeds 1"
    assert not broken, f"{storm.report(broken)}\nto run this storm again: nox -s chaos -- {again}"

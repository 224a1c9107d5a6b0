"""Storms over every store, each from one seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.storm import Plan, Storm


@pytest.mark.timeout(900)
def test_a_storm_breaks_no_promise(site: str, seed: int, tmp_path: Path) -> None:
    plan = Plan.draw(site, seed)
    again = f"nox -s chaos -- -k breaks_no_promise --driver {site} --first-seed {seed} --seeds 1"
    print(f"to run this storm again: {again}\n{plan.describe()}")
    storm = Storm(site, plan, tmp_path)
    broken = storm.run()
    assert not broken, f"{storm.report(broken)}\nto run this storm again: {again}"

"""The kernel kills children that take more memory than there is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.chaos.cgroups import MemoryCgroup, memory_cgroup
from tests.chaos.checker import Expect, Promise
from tests.chaos.faults import Missed, OnPost, Scene
from tests.chaos.orders import Order
from tests.chaos.storm import SECONDS, Plan, Storm
from tests.chaos.tasks import ENDLESS
from tests.chaos.weather import Blow

JOBS = 60
MEGABYTES = 64
LEFT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Starve(OnPost):
    """One child can't take any more: its next large job is its end."""

    cgroup: MemoryCgroup

    def strike(self, scene: Scene) -> None:
        child = self.find(scene, "child")
        try:
            self.cgroup.add(child.pid)
        except ProcessLookupError as error:
            raise Missed(f"{child.pid} was gone") from error


def _order(number: int) -> Order:
    promise = Promise(id=f"large-{number}", expect=Expect.SUCCEEDS, max_attempts=ENDLESS)
    return Order(at=SECONDS * number / JOBS, promise=promise, task="fill_memory", args=(MEGABYTES,))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("site", ["sqlite", "redis"])
def test_children_killed_for_want_of_memory_break_no_promise(
    site: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Needs root: only root may make a cgroup."""
    drawn = Plan.draw(site, pytestconfig.getoption("first_seed"))
    orders = sorted([*drawn.orders, *map(_order, range(JOBS))], key=lambda order: order.at)
    with memory_cgroup() as cgroup:
        cgroup.set_limit(LEFT_BYTES)
        starving = [
            Blow(at=SECONDS * (0.1 + 0.2 * n), fault=Starve(post=n % 2, cgroup=cgroup))
            for n in range(4)
        ]
        blows = sorted([*drawn.blows, *starving], key=lambda blow: blow.at)
        storm = Storm(site, replace(drawn, orders=orders, blows=blows), tmp_path / "storm")
        broken = storm.run()
        assert not broken, storm.report(broken)
        assert cgroup.kills > 0, storm.report(["nobody was killed by the kernel"])

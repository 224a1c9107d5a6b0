"""The store's time, and the fences, across processes and clocks."""

from __future__ import annotations

from contextlib import closing

from taskharbor.clock import ManualClock
from taskharbor.drivers.base import Want
from taskharbor.drivers.sqlite import connect
from taskharbor.settlement import Settlement
from tests.drivers.sqlite.conftest import job

_WANT = Want(("default",), 10, 30.0)


def test_time_does_not_run_back_when_the_file_is_opened_by_a_clock_that_is_late(url: str) -> None:
    with closing(connect(url, clock=ManualClock(1000.0))) as early:
        early.enqueue([job()])
        (lease,) = early.exchange("h", (), _WANT).reserved
    late_clock = ManualClock(500.0)
    with closing(connect(url, clock=late_clock)) as late:
        assert late.exchange("h", ()).now == 1000.0
        late_clock.advance(529.0)
        assert late.expired(10) == []
        late_clock.advance(1.0)
        assert [found.fence for found in late.expired(10)] == [lease.fence]


def test_fences_go_on_where_they_were_when_nothing_is_left(url: str) -> None:
    fences = []
    for _ in range(3):
        with closing(connect(url)) as driver:
            driver.enqueue([job()])
            (lease,) = driver.exchange("h", (), _WANT).reserved
            driver.exchange("h", [Settlement.succeed("a", lease.fence, None)])
            driver.delete(["a"])
            fences.append(lease.fence)
    assert fences == sorted(set(fences))

"""Names that nothing can have: there is nothing by them, as in other stores."""

from __future__ import annotations

from contextlib import closing

import pytest

from taskharbor.drivers.base import JobFilter, RequeueVerdict, Want
from taskharbor.errors import InvalidJob
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer


@pytest.mark.parametrize("name", ["nul\0", "half \udc80"])
def test_what_no_text_of_postgres_can_hold_is_not_there(
    postgres_server: PostgresServer, name: str
) -> None:
    with closing(migrated(postgres_server.url)) as driver:
        driver.enqueue([job("a")])
        for where in (JobFilter(queue=name), JobFilter(task=name)):
            assert driver.list_jobs(where).jobs == []
            assert driver.purge(where) == 0
        assert driver.requeue(["b"], queue=name) == [RequeueVerdict.NOT_FOUND]
        driver.wait([name], 0.0)
        (reserved,) = driver.exchange("holder", (), Want((name, "default"), 5, 30.0)).reserved
        assert reserved.id == "a"
        for call in (driver.pause, driver.resume):
            with pytest.raises(InvalidJob, match="not a valid name"):
                call(name)

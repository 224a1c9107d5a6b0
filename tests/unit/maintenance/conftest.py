from collections.abc import Iterator

import pytest

from tests.unit.maintenance.store import Shop


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.driver.close()

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.child.harness import Yard, open_yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with open_yard(tmp_path) as yard:
        yield yard

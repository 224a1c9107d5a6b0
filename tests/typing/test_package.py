"""What type checkers need to find in the package."""

from pathlib import Path

import taskharbor
from tests.typing import public_api


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(taskharbor.__file__).parent / "py.typed").exists()


def test_every_public_name_exists_and_says_what_it_is() -> None:
    names = [name for name in taskharbor.__all__ if not name.startswith("__")]
    assert names == sorted(names)
    assert all(getattr(taskharbor, name).__doc__ for name in names)


def test_the_checked_module_is_one_that_imports() -> None:
    assert len(public_api.app.tasks) == 10

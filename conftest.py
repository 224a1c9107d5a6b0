"""What every test tree shares: servers on demand, documents as tests, and Hypothesis settings."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.documents import sybil

pytest_plugins = ["tests.servers.fixtures"]

# Collects README.md and docs/*.md, when a run names them.
pytest_collect_file = sybil.pytest()

# Machines that run tests are busy: an example that takes long is no failure. A failing example
# prints the blob that replays it. CI plays the same examples every time, so that what it refuses is
# what a change did; new ones are found by whoever runs the tests anywhere else.
settings.register_profile(
    "taskharbor",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("taskharbor")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="the long form: more seeds, more time, more servers",
    )
    chaos = parser.getgroup("chaos", "storms over real stores")
    chaos.addoption("--seeds", type=int, default=1, help="how many storms over each store")
    chaos.addoption("--minutes", type=float, default=60.0, help="of a soak, for each store")
    chaos.addoption("--first-seed", type=int, default=0)
    chaos.addoption(
        "--histories", type=int, help="small simulated histories of each kind; default 1000"
    )
    chaos.addoption(
        "--driver",
        action="append",
        choices=["memory", "sqlite", "redis", "postgres"],
        help="only over this store; may be given several times",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked as long runs with ``--long``."""
    if not config.getoption("long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def long_form(pytestconfig: pytest.Config) -> bool:
    """Whether --long was given: more seeds, more time."""
    return bool(pytestconfig.getoption("--long"))

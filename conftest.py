"""What every test tree shares: servers on demand, and Hypothesis as CI wants it."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers.fixtures"]

# Machines that run tests are busy: an example that takes long is no failure. A failing example
# prints the blob that replays it.
settings.register_profile(
    "taskharbor", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("taskharbor")

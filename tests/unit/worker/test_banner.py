"""The banner tells what runs and keeps secrets."""

import pytest

from taskharbor.worker.banner import as_text, facts, without_secrets
from taskharbor.worker.config import WorkerConfig


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///taskharbor.db", "sqlite:///taskharbor.db"),
        ("sqlite:////var/lib/jobs.db?timeout=5", "sqlite:////var/lib/jobs.db?timeout=5"),
        ("memory://shop", "memory://shop"),
        ("postgresql://me:s3cret@db:5432/shop", "postgresql://me:***@db:5432/shop"),
        ("redis://:s3cret@host/0", "redis://:***@host/0"),
        ("redis://:s3@cr:et@host/0", "redis://:***@host/0"),
        ("redis://host?password=s3cret&db=1", "redis://host?password=***&db=1"),
        ("postgresql:///shop?sslpassword=s3cret", "postgresql:///shop?sslpassword=***"),
        ("redis+sentinel://h1,h2/mymaster?auth_token=s3cret", None),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str | None) -> None:
    assert "s3" not in without_secrets(url)
    assert shown is None or without_secrets(url) == shown


def test_the_banner_says_everything_that_is_asked_when_something_goes_wrong() -> None:
    config = WorkerConfig(
        app_path="shop.tasks:app",
        queues=(("mail", 3), ("default", 1)),
        concurrency=4,
        pool="thread",
        slots=16,
        lease_seconds=9.0,
        grace_seconds=20.0,
    )
    text = as_text(facts(config, url="redis://:s3cret@host/0", tasks=12))
    for part in (
        "shop.tasks:app (12 tasks)",
        "redis://:***@host/0",
        "mail (weight 3), default",
        "4 children, pool thread with 16 slots each",
        "9 s, heartbeat 3 s, grace 20 s",
    ):
        assert part in text

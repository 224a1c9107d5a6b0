"""``migrate``: the store's own schema."""

from __future__ import annotations

import click

from taskharbor.cli.options import store_options
from taskharbor.cli.output import print_json
from taskharbor.cli.target import open_store


@click.command()
@store_options
def migrate(url: str | None, app_path: str | None, as_json: bool) -> None:
    """Bring the store's schema up to date. Safe to run from many machines at once; does nothing
    for stores that need no schema.

    \b
    Example:
      taskharbor migrate --url postgresql://localhost/shop
    """
    from taskharbor.drivers.base import Migratable

    with open_store(url, app_path) as driver:
        steps = driver.migrate() if isinstance(driver, Migratable) else []
    if as_json:
        print_json({"steps": steps})
    elif steps:
        click.echo("\n".join(steps))
    else:
        click.echo("Nothing to do.")

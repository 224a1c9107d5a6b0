"""``migrate``: the store's own schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskharbor.cli.exits import Exit
from taskharbor.cli.options import store_options
from taskharbor.cli.output import print_json
from taskharbor.cli.target import open_store

if TYPE_CHECKING:
    from taskharbor.drivers.base import InspectableDriver


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; fail if there is something to do.")
@click.option("--sql", is_flag=True, help="Change nothing; print what would be run.")
@store_options
def migrate(check: bool, sql: bool, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Bring the store's schema up to date. Safe to run from many machines at once; does nothing
    for stores that need no schema.

    \b
    Examples:
      taskharbor migrate --url postgresql://localhost/shop
      taskharbor migrate --sql --url postgresql://localhost/shop > steps.sql
    """
    if check and sql:
        raise click.UsageError("--check and --sql exclude each other; drop one of them")
    with open_store(url, app_path) as driver:
        if sql:
            _print_script(_script(driver), as_json)
            return
        steps = _pending(driver) if check else _migrate(driver)
    if as_json:
        print_json({"steps": steps})
    elif steps:
        click.echo("\n".join(steps))
    else:
        click.echo("Nothing to do.")
    if check and steps:
        raise click.exceptions.Exit(Exit.FAILED)


def _print_script(script: str, as_json: bool) -> None:
    if as_json:
        print_json({"sql": script})
    else:
        click.echo(script, nl=False)


def _migrate(driver: InspectableDriver) -> list[str]:
    from taskharbor.drivers.base import Migratable

    return driver.migrate() if isinstance(driver, Migratable) else []


def _pending(driver: InspectableDriver) -> list[str]:
    from taskharbor.drivers.base import Scripted

    return driver.pending() if isinstance(driver, Scripted) else []


def _script(driver: InspectableDriver) -> str:
    from taskharbor.drivers.base import Scripted

    return driver.script() if isinstance(driver, Scripted) else ""

"""``queues``: what stands in which line, and which lines are paused."""

from __future__ import annotations

import time
from typing import Any

import click

from taskharbor.cli.options import check_with, store_options
from taskharbor.cli.output import iso, print_json, print_table
from taskharbor.cli.target import open_store
from taskharbor.message import check_name

_names = click.argument(
    "names",
    metavar="QUEUE...",
    nargs=-1,
    required=True,
    callback=check_with(check_name, "queue"),
)


@click.group(invoke_without_command=True)
@store_options
@click.pass_context
def queues(ctx: click.Context, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Count jobs by queue and state; pause and resume queues.

    \b
    Examples:
      taskharbor queues
      taskharbor queues pause mail
    """
    if ctx.invoked_subcommand is None:
        _show(url, app_path, as_json)
    elif url or app_path or as_json:
        # Taken silently, they would pause a queue of another store than was meant.
        raise click.UsageError(f"put the flags behind {ctx.invoked_subcommand!r}")


def _show(url: str | None, app_path: str | None, as_json: bool) -> None:
    with open_store(url, app_path) as driver:
        found = driver.queues()
    if as_json:
        shapes: list[dict[str, Any]] = [
            {
                "name": queue.name,
                "paused": queue.paused,
                "counts": {str(state): count for state, count in queue.counts.items()},
                "oldest_ready_at": iso(queue.oldest_ready_at),
            }
            for queue in found
        ]
        print_json({"queues": shapes})
        return
    if not found:
        click.echo("No jobs.")
        return
    states = list(found[0].counts)
    rows = [
        (
            f"{queue.name} (paused)" if queue.paused else queue.name,
            *queue.counts.values(),
            _age(queue.oldest_ready_at),
        )
        for queue in found
    ]
    print_table(("QUEUE", *(state.upper() for state in states), "WAITING"), rows)


def _age(since: float | None) -> str | None:
    return None if since is None else f"{max(0.0, time.time() - since):.0f} s"


@queues.command()
@_names
@store_options
def pause(names: tuple[str, ...], url: str | None, app_path: str | None, as_json: bool) -> None:
    """Give out no more jobs of these queues. Running ones go on, new ones may be enqueued.

    \b
    Example:
      taskharbor queues pause mail bulk
    """
    with open_store(url, app_path) as driver:
        for name in names:
            driver.pause(name)
    _confirm(names, "paused", as_json)


@queues.command()
@_names
@store_options
def resume(names: tuple[str, ...], url: str | None, app_path: str | None, as_json: bool) -> None:
    """Give out jobs of these queues again.

    \b
    Example:
      taskharbor queues resume mail
    """
    with open_store(url, app_path) as driver:
        for name in names:
            driver.resume(name)
    _confirm(names, "resumed", as_json)


def _confirm(names: tuple[str, ...], done: str, as_json: bool) -> None:
    if as_json:
        print_json({done: list(names)})
    else:
        click.echo(f"{done}: {', '.join(names)}")

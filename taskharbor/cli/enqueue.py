"""``enqueue``: a job from the command line, with or without the app's code."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from taskharbor.cli.options import (
    check_with,
    moment,
    queue_option,
    read_arguments,
    seconds,
    store_options,
)
from taskharbor.cli.output import print_json
from taskharbor.cli.target import open_app
from taskharbor.defaults import MAX_PRIORITY
from taskharbor.errors import ConfigurationError
from taskharbor.message import check_name

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.result import AsyncResult
    from taskharbor.task import Task


def _timeout(text: str) -> float | str:
    return "none" if text == "none" else seconds(text)


def _expiry(text: str) -> float | datetime:
    """A length of time from now, or a moment."""
    return moment(text) if "-" in text[1:] else seconds(text)


@click.command()
@click.argument("task", callback=check_with(check_name, "task"))
@click.argument("arguments", metavar="[JSON]...", nargs=-1)
@queue_option("Default: the task's, else 'default'.")
@click.option(
    "--priority",
    type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY),
    help="Higher ones first; default 0.",
)
@click.option("--eta", type=moment, metavar="MOMENT", help="Not before then; RFC 3339 or unix.")
@click.option("--countdown", type=seconds, help="Not before so long from now.")
@click.option("--expires", type=_expiry, metavar="MOMENT|SECONDS", help="Not started after that.")
@click.option(
    "--timeout", type=_timeout, metavar="SECONDS|none", help="For each attempt; default 1 h."
)
@click.option("--max-attempts", type=click.IntRange(1), help="Default: the task's, else 5.")
@click.option("--idempotency-key", metavar="KEY", help="At most one job per key and queue.")
@click.option(
    "--job-id", metavar="ID", help="An id of your own; enqueueing it again changes nothing."
)
@click.option("--wait", type=seconds, help="Wait so long for the result, and print it.")
@store_options
def enqueue(
    task: str,
    arguments: tuple[str, ...],
    wait: float | None,
    url: str | None,
    app_path: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Put a job in line.

    TASK is the task's name, as in shop.tasks.send_email. JSON is an array of positional arguments,
    an object of keyword arguments, or one of each; @FILE reads them from a file, - from standard
    input. With -A, the task's options apply and the arguments are checked; without, no code of the
    app is needed.

    \b
    Examples:
      taskharbor enqueue taskharbor.echo '["hi"]' --wait 10
      taskharbor enqueue -A shop.tasks shop.tasks.send_email '["a@b.c"]' '{"template": "hi"}'
      taskharbor enqueue shop.tasks.report --eta 2030-01-31T09:00:00Z --idempotency-key january
      taskharbor enqueue shop.tasks.load @rows.json --queue bulk --max-attempts 3
    """
    args, kwargs = read_arguments(arguments)
    call_options = _call_options(**options)
    with open_app(url, app_path) as app:
        chosen = _task(app, task) if app_path else _without_code(app, task)
        result = chosen.apply_async(args, kwargs, **call_options)
        _report(result, chosen.name, as_json and wait is None)
        if wait is not None:
            from taskharbor.cli.result import show_result

            show_result(app.driver, result.id, wait, as_json)


def _call_options(
    *, timeout: float | str | None, eta: datetime | None, countdown: float | None, **others: Any
) -> dict[str, Any]:
    """The options that were given, as ``apply_async`` takes them."""
    if eta is not None and countdown is not None:
        raise click.UsageError("--eta and --countdown exclude each other; drop one of them")
    given = {"eta": eta, "countdown": countdown, **others}
    options = {name: value for name, value in given.items() if value is not None}
    if timeout is not None:
        options["timeout"] = None if timeout == "none" else timeout
    return options


def _task(app: TaskHarbor, name: str) -> Task[..., Any]:
    """The app's task. Raises ConfigurationError."""
    found = app.tasks.get(name)
    if found is not None:
        return found
    from difflib import get_close_matches

    close = get_close_matches(name, app.tasks, n=1)
    known = ", ".join(sorted(app.tasks)) or "none"
    hint = f"did you mean {close[0]!r}?" if close else f"it has: {known}"
    raise ConfigurationError(f"the app has no task {name!r}; {hint}")


def _without_code(app: TaskHarbor, name: str) -> Task[..., Any]:
    """A task of that name that takes any arguments. Only workers have the code behind it."""

    def known_to_workers(*args: Any, **kwargs: Any) -> None:
        raise ConfigurationError(f"the code of {name} is not here")

    return app.task(name=name)(known_to_workers)


def _report(result: AsyncResult[Any], task: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "id": result.id,
                "task": task,
                "created": result.created,
                "same_request": result.same_request,
            }
        )
        return
    click.echo(result.id)
    if not result.created:
        same = "" if result.same_request else ", and with other arguments than these"
        click.echo(f"This job was there before{same}; nothing changed.", err=True)

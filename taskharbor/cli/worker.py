"""``worker`` and ``maintenance``: the commands that stay."""

from __future__ import annotations

from typing import Any

import click

from taskharbor import defaults
from taskharbor.cli.options import app_option, seconds, size, url_option
from taskharbor.cli.target import import_app, store_url

BUILTIN_APP = "taskharbor.builtin"

_level = click.option(
    "-l",
    "--loglevel",
    "log_level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    default="info",
    show_default=True,
    help="Log nothing less than this.",
)
_format = click.option(
    "--log-format",
    type=click.Choice(["auto", "human", "json"]),
    default="auto",
    show_default=True,
    help="auto: human on a terminal, else JSON.",
)
_lease = click.option(
    "--lease",
    "lease_seconds",
    type=seconds,
    default=defaults.LEASE_SECONDS,
    help="After how long a lost machine's jobs go to others; default 30 s.",
)


@click.command()
@app_option
@url_option
@click.option("-Q", "--queues", metavar="NAME[:WEIGHT],...", help="Default: default.")
@click.option(
    "-c", "--concurrency", type=click.IntRange(1), help="Child processes; default: one per core."
)
@click.option(
    "--pool",
    type=click.Choice(["process", "thread", "async"]),
    default="process",
    show_default=True,
    help="How a child runs jobs: one at a time, in threads, or as coroutines.",
)
@click.option(
    "--slots",
    type=click.IntRange(1),
    help="Jobs at a time in each child; default: 8 threads, 100 coroutines.",
)
@_lease
@click.option(
    "--heartbeat", "heartbeat_seconds", type=seconds, help="Default: a third of the lease."
)
@click.option(
    "--grace",
    "grace_seconds",
    type=seconds,
    default=defaults.GRACE_SECONDS,
    help="For running jobs to end, when stopping; default 30 s.",
)
@click.option(
    "--prefetch",
    "prefetch_max",
    type=click.IntRange(1),
    default=defaults.PREFETCH_MAX,
    show_default=True,
    help="Most jobs that a child reserves at once; short jobs only.",
)
@click.option(
    "--max-tasks-per-child", type=click.IntRange(1), help="Replace a child after so many jobs."
)
@click.option(
    "--max-memory-per-child", type=size, help="Replace a child that is bigger: 256M, 1.5G."
)
@click.option("--reload", is_flag=True, help="Start anew when the app's files change.")
@_level
@_format
@click.pass_context
def worker(
    ctx: click.Context,
    /,
    app_path: str | None,
    queues: str | None,
    log_level: Any,
    **settings: Any,
) -> None:
    """Run jobs in child processes, until TERM or Ctrl-C.

    Without -A, it knows the built-in tasks taskharbor.echo, taskharbor.fail and taskharbor.sleep.

    \b
    Signals: TERM or INT stop it when the running jobs have ended, at the latest after --grace; a
    second one or QUIT stops it at once. HUP loads the code anew.

    \b
    Examples:
      taskharbor worker -A shop.tasks
      taskharbor worker -A shop.tasks:app -c 8 -Q mail:3,default -l warning
      taskharbor worker -A shop.tasks --pool async --slots 200 --max-memory-per-child 512M
      taskharbor worker -A shop.tasks -c 1 --reload
    """
    from taskharbor.worker.config import WorkerConfig, parse_queues
    from taskharbor.worker.run import run_worker

    given = {name: value for name, value in settings.items() if value is not None}
    if queues is not None:
        given["queues"] = parse_queues(queues)
    config = WorkerConfig(app_path=app_path or BUILTIN_APP, log_level=log_level.lower(), **given)
    ctx.exit(run_worker(config))


@click.command()
@app_option
@url_option
@_lease
@_level
@_format
@click.pass_context
def maintenance(
    ctx: click.Context,
    /,
    app_path: str | None,
    url: str | None,
    log_level: Any,
    **settings: Any,
) -> None:
    """Reclaim expired leases, promote due jobs and prune old records, without running any.

    Every worker does that too; this is for a machine that runs none. Any number may run.

    \b
    Example:
      taskharbor maintenance --url redis://localhost
    """
    from taskharbor.maintenance.run import MaintenanceConfig, run_maintenance

    store = store_url(url, import_app(app_path) if app_path else None)
    config = MaintenanceConfig(url=store, log_level=log_level.lower(), **settings)
    ctx.exit(run_maintenance(config))

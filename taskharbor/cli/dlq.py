"""``dlq``: the dead-letter queue, which is all jobs that are dead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from taskharbor import defaults
from taskharbor.cli.options import (
    listing_options,
    moment,
    queue_option,
    seconds,
    store_options,
    task_option,
)
from taskharbor.cli.output import print_json
from taskharbor.cli.target import open_store
from taskharbor.states import State

if TYPE_CHECKING:
    from taskharbor.drivers.base import InspectableDriver, Job, JobFilter, RequeueVerdict

_DEAD = frozenset({State.DEAD})


@click.group()
def dlq() -> None:
    """The dead-letter queue: jobs that failed for good."""


@dlq.command("list")
@listing_options
@store_options
def list_dead(
    queue: str | None,
    task: str | None,
    limit: int,
    cursor: str | None,
    url: str | None,
    app_path: str | None,
    as_json: bool,
) -> None:
    """List dead jobs, those enqueued last first. The same as list --state dead.

    \b
    Example:
      taskharbor dlq list --queue mail
    """
    from taskharbor.cli.jobs import show_page

    show_page(_dead(queue, task), limit, cursor, url, app_path, as_json)


@dlq.command()
@click.argument("job_ids", metavar="[JOB_ID...]", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All dead jobs that match --queue and --task.")
@queue_option("Only if the job is in this queue.")
@task_option("With --all: only jobs of this task.")
@click.option("--eta", type=moment, metavar="MOMENT", help="Not before then; RFC 3339 or unix.")
@click.option("--countdown", type=seconds, default=0.0, help="Not before so long from now.")
@click.option("--keep-attempts", is_flag=True, help="Go on counting: one more attempt each.")
@store_options
def requeue(
    job_ids: tuple[str, ...],
    every: bool,
    queue: str | None,
    task: str | None,
    url: str | None,
    app_path: str | None,
    as_json: bool,
    **when: Any,
) -> None:
    """Put dead jobs back in line, with all their attempts unless --keep-attempts.

    \b
    Examples:
      taskharbor dlq requeue 01a200915b15b65dc5cae7213906
      taskharbor dlq requeue --all --queue mail --countdown 10m
      taskharbor dlq requeue --all --task shop.tasks.pay --keep-attempts
    """
    how = _how(**when)
    if bool(job_ids) == every:
        raise click.UsageError("name the jobs to requeue, or give --all")
    if task and not every:
        raise click.UsageError("--task chooses among --all; a job named by its id needs none")
    with open_store(url, app_path) as driver:
        if not every:
            _requeue_named(driver, job_ids, queue, how, as_json)
            return
        counts = _requeue_all(driver, _dead(queue, task), how)
    _report_counts(counts, as_json)


def _how(eta: datetime | None, countdown: float, keep_attempts: bool) -> dict[str, Any]:
    if eta is not None and countdown:
        raise click.UsageError("--eta and --countdown exclude each other; drop one of them")
    return {
        "eta": eta.timestamp() if eta else None,
        "delay": countdown,
        "reset_attempts": not keep_attempts,
    }


def _requeue_named(
    driver: InspectableDriver,
    job_ids: Sequence[str],
    queue: str | None,
    how: dict[str, Any],
    as_json: bool,
) -> None:
    from taskharbor.cli.jobs import report_requeue

    verdicts = driver.requeue(job_ids, states=_DEAD, queue=queue, **how)
    report_requeue(job_ids, verdicts, {State.DEAD}, queue=queue, as_json=as_json)


def _requeue_all(
    driver: InspectableDriver, where: JobFilter, how: dict[str, Any]
) -> Counter[RequeueVerdict]:
    counts: Counter[RequeueVerdict] = Counter()
    for jobs in _pages(driver, where):
        job_ids = [job.id for job in jobs]
        counts.update(driver.requeue(job_ids, states=_DEAD, queue=where.queue, **how))
    return counts


def _pages(driver: InspectableDriver, where: JobFilter) -> Iterator[list[Job]]:
    cursor = None
    while True:
        page = driver.list_jobs(where, cursor=cursor, limit=defaults.BATCH)
        if page.jobs:
            yield page.jobs
        cursor = page.cursor
        if cursor is None:
            return


def _report_counts(counts: Counter[RequeueVerdict], as_json: bool) -> None:
    from taskharbor.drivers.base import RequeueVerdict

    # Any other verdict: somebody else saw to the job meanwhile.
    stayed = {
        RequeueVerdict.KEY_HELD: "other jobs have their idempotency keys now",
        RequeueVerdict.UPSTREAM: "what they wait for in their flow has failed; see taskharbor flow",
    }
    requeued = counts[RequeueVerdict.REQUEUED]
    if as_json:
        print_json({"requeued": requeued} | {str(why): counts[why] for why in stayed})
        return
    click.echo(f"{requeued} requeued")
    for why, words in stayed.items():
        if counts[why]:
            click.echo(f"{counts[why]} stay: {words}", err=True)


@dlq.command()
@queue_option()
@task_option()
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_options
def purge(
    queue: str | None,
    task: str | None,
    yes: bool,
    url: str | None,
    app_path: str | None,
    as_json: bool,
) -> None:
    """Delete dead jobs for good. Asks first; with --json it needs --yes. Jobs of flows stay: they
    go with their flow, see taskharbor flow delete.

    \b
    Example:
      taskharbor dlq purge --queue mail --yes
    """
    if as_json and not yes:
        raise click.UsageError("--json can't ask whether to delete; give --yes")
    with open_store(url, app_path) as driver:
        if not yes:
            asked = f" of queue {queue}" if queue else ""
            click.confirm(f"Delete all dead jobs{asked} in {driver.url}?", abort=True, err=True)
        purged = 0
        while count := driver.purge(_dead(queue, task), limit=defaults.BATCH):
            purged += count
        left = (job for page in _pages(driver, _dead(queue, task)) for job in page)
        in_flows = sum(job.flow is not None for job in left)
    if as_json:
        print_json({"purged": purged, "in_flow": in_flows})
        return
    click.echo(f"{purged} deleted")
    if in_flows:
        click.echo(
            f"{in_flows} stay: they go with their flow; see taskharbor flow delete", err=True
        )


def _dead(queue: str | None, task: str | None) -> JobFilter:
    from taskharbor.drivers.base import JobFilter

    return JobFilter(state=State.DEAD, queue=queue, task=task)

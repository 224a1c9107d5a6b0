"""``list``, ``inspect``, ``cancel`` and ``job``: single jobs and pages of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import click

from taskharbor.cli.exits import Exit
from taskharbor.cli.options import listing_options, store_options
from taskharbor.cli.output import print_json
from taskharbor.cli.paging import whole_page
from taskharbor.cli.target import open_store
from taskharbor.states import State

if TYPE_CHECKING:
    from taskharbor.drivers.base import JobFilter

_STATES = [str(state) for state in State]


@click.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only jobs in this state.")
@listing_options
@store_options
def list_jobs(
    state: str | None,
    queue: str | None,
    task: str | None,
    limit: int,
    cursor: str | None,
    url: str | None,
    app_path: str | None,
    as_json: bool,
) -> None:
    """List jobs, those enqueued last first.

    \b
    Examples:
      taskharbor list --state running
      taskharbor list --queue mail --task shop.tasks.send_email --limit 100
      taskharbor list --json | jq -r '.jobs[].id'
    """
    from taskharbor.drivers.base import JobFilter

    where = JobFilter(state=State(state) if state else None, queue=queue, task=task)
    show_page(where, limit, cursor, url, app_path, as_json)


def show_page(
    where: JobFilter,
    limit: int,
    cursor: str | None,
    url: str | None,
    app_path: str | None,
    as_json: bool,
) -> None:
    """Print one page of the jobs that match."""
    from taskharbor.cli import views

    with open_store(url, app_path) as driver:
        jobs, cursor = whole_page(
            lambda after, most: driver.list_jobs(where, cursor=after, limit=most), cursor, limit
        )
    if as_json:
        print_json({"jobs": [views.brief(job) for job in jobs], "cursor": cursor})
        return
    views.print_jobs(jobs)
    if cursor is not None:
        click.echo(f"\nMore: the same command with --cursor {cursor}", err=True)


@click.command()
@click.argument("job_id")
@store_options
def inspect(job_id: str, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Show all that is known of a job: arguments, result, error, every ended attempt.

    With -A, values of the app's own classes can be shown too.

    \b
    Examples:
      taskharbor inspect 01a200915b15b65dc5cae7213906
      taskharbor inspect 01a200915b15b65dc5cae7213906 --json | jq .history
    """
    from taskharbor.cli import views
    from taskharbor.result import not_found

    with open_store(url, app_path) as driver:
        job = driver.get(job_id)
    if job is None:
        raise not_found(job_id)
    if as_json:
        print_json(views.full(job))
    else:
        views.print_job(job)


@click.command()
@click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True)
@store_options
def cancel(job_ids: tuple[str, ...], url: str | None, app_path: str | None, as_json: bool) -> None:
    """Cancel jobs. A waiting one is cancelled at once; a running one is asked to stop, and is
    not retried if it fails.

    \b
    Exit code 4 if a job was finished already, 3 if there is no such job.

    \b
    Example:
      taskharbor cancel 01a200915b15b65dc5cae7213906
    """
    from taskharbor.drivers.base import CancelVerdict

    with open_store(url, app_path) as driver:
        verdicts = driver.cancel(job_ids)
    report(
        job_ids,
        verdicts,
        done={CancelVerdict.CANCELLED, CancelVerdict.REQUESTED},
        answers={
            CancelVerdict.CANCELLED: "cancelled",
            CancelVerdict.REQUESTED: "is running; it is asked to stop",
            CancelVerdict.FINISHED: "was finished already",
            CancelVerdict.NOT_FOUND: "there is no such job",
        },
        as_json=as_json,
    )


@click.group()
def job() -> None:
    """Retry or delete single jobs."""


@job.command()
@click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True)
@click.option("--succeeded", is_flag=True, help="Also jobs that succeeded: run them again.")
@store_options
def retry(
    job_ids: tuple[str, ...],
    succeeded: bool,
    url: str | None,
    app_path: str | None,
    as_json: bool,
) -> None:
    """Put dead and cancelled jobs back in line, with all their attempts.

    For a delay, a guard on the queue, or many jobs at once, see taskharbor dlq requeue.

    \b
    Example:
      taskharbor job retry 01a200915b15b65dc5cae7213906
    """
    states = {State.DEAD, State.CANCELLED} | ({State.SUCCEEDED} if succeeded else set())
    with open_store(url, app_path) as driver:
        verdicts = driver.requeue(job_ids, states=frozenset(states))
    report_requeue(job_ids, verdicts, states, as_json=as_json)


@job.command()
@click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True)
@store_options
def delete(job_ids: tuple[str, ...], url: str | None, app_path: str | None, as_json: bool) -> None:
    """Delete jobs with their results and keys, for good. Running ones stay.

    \b
    Example:
      taskharbor job delete 01a200915b15b65dc5cae7213906
    """
    from taskharbor.drivers.base import DeleteVerdict

    with open_store(url, app_path) as driver:
        verdicts = driver.delete(job_ids)
    report(
        job_ids,
        verdicts,
        done={DeleteVerdict.DELETED},
        answers={
            DeleteVerdict.DELETED: "deleted",
            DeleteVerdict.RUNNING: "is running; cancel it first",
            DeleteVerdict.NOT_FOUND: "there is no such job",
            DeleteVerdict.IN_FLOW: "is part of a flow, and goes with that; see "
            "taskharbor flow delete",
        },
        as_json=as_json,
    )


def report_requeue(
    job_ids: Sequence[str],
    verdicts: Sequence[StrEnum],
    states: set[State],
    *,
    queue: str | None = None,
    as_json: bool,
) -> None:
    """Say what became of each job that was to go back in line; ends the command."""
    from taskharbor.drivers.base import RequeueVerdict

    report(
        job_ids,
        verdicts,
        done={RequeueVerdict.REQUEUED},
        answers={
            RequeueVerdict.REQUEUED: "requeued",
            RequeueVerdict.WRONG_STATE: f"is not {' or '.join(sorted(states))}",
            RequeueVerdict.WRONG_QUEUE: f"is not in queue {queue}",
            RequeueVerdict.KEY_HELD: "another job has its idempotency key now; see to that one, or "
            "delete this one",
            RequeueVerdict.NOT_FOUND: "there is no such job",
            RequeueVerdict.UPSTREAM: "what it waits for in its flow has failed; retry that one, or "
            "all with taskharbor flow retry",
        },
        as_json=as_json,
    )


def report(
    job_ids: Sequence[str],
    verdicts: Sequence[StrEnum],
    *,
    done: Set[Any],
    answers: Mapping[Any, str],
    as_json: bool,
) -> None:
    """Print the verdict on each job; ends with NOT_FOUND or REFUSED unless all are ``done``."""
    judged = list(zip(job_ids, verdicts, strict=True))
    if as_json:
        print_json({"jobs": [{"id": job_id, "verdict": str(v)} for job_id, v in judged]})
    else:
        for job_id, verdict in judged:
            click.echo(f"{job_id}: {answers[verdict]}", err=verdict not in done)
    refused = [verdict for verdict in verdicts if verdict not in done]
    if refused:
        missing = all(verdict == "not_found" for verdict in refused)
        click.get_current_context().exit(Exit.NOT_FOUND if missing else Exit.REFUSED)

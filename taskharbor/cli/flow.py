"""``flow``: list flows, draw one, watch it, cancel it, retry what failed in it, delete it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from taskharbor.cli import flow_view
from taskharbor.cli.exits import Exit
from taskharbor.cli.options import store_options
from taskharbor.cli.output import local, print_json, print_table
from taskharbor.cli.paging import whole_page
from taskharbor.cli.target import open_app
from taskharbor.errors import JobNotFound

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.flows import FlowDriver
    from taskharbor.flow.result import FlowResult


@click.group()
def flow() -> None:
    """Look at flows, cancel them, retry what failed in them, delete them."""


@flow.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--cursor", help="Where the page before ended.")
@store_options
def list_flows(
    limit: int, cursor: str | None, url: str | None, app_path: str | None, as_json: bool
) -> None:
    """List flows, those stored last first.

    \b
    Example:
      taskharbor flow list --json | jq -r '.flows[] | select(.state == "failed") | .id'
    """
    with open_app(url, app_path) as app:
        driver = _flows(app)
        flows, cursor = whole_page(
            lambda after, most: driver.list_flows(cursor=after, limit=most), cursor, limit
        )
    if as_json:
        print_json({"flows": [flow_view.shape(info) for info in flows], "cursor": cursor})
        return
    if not flows:
        click.echo("There are no flows.")
        return
    rows = [
        (info.id, info.name, str(info.state), flow_view.count_done(info), local(info.created_at))
        for info in flows
    ]
    print_table(("ID", "NAME", "STATE", "DONE", "STORED"), rows)
    if cursor is not None:
        click.echo(f"\nMore: the same command with --cursor {cursor}", err=True)


@flow.command()
@click.argument("flow_id")
@click.option("--mermaid", "form", flag_value="mermaid", help="Print a Mermaid flowchart.")
@click.option("--dot", "form", flag_value="dot", help="Print a Graphviz digraph.")
@click.option("--follow", "-f", is_flag=True, help="Draw it again and again until it has ended.")
@store_options
def inspect(
    flow_id: str,
    form: str | None,
    follow: bool,
    url: str | None,
    app_path: str | None,
    as_json: bool,
) -> None:
    """Draw a flow with the state of each job. Jobs that are alike are folded to one line.

    \b
    Examples:
      taskharbor flow inspect 01a200915b15b65dc5cae7213906 --follow
      taskharbor flow inspect 01a200915b15b65dc5cae7213906 --dot | dot -Tsvg > flow.svg
    """
    if follow and form is not None:
        raise click.UsageError(f"--follow draws a tree; leave out --{form}, or --follow")
    with open_app(url, app_path) as app, _asked_for(app, flow_id) as asked:
        if follow:
            flow_view.follow(asked, as_json=as_json)
            return
        drawing = asked.graph()
    if as_json:
        print_json(flow_view.whole_shape(drawing))
    elif form is not None:
        click.echo(drawing.mermaid() if form == "mermaid" else drawing.dot())
    else:
        click.echo(flow_view.picture(drawing))


@flow.command()
@click.argument("flow_id")
@store_options
def watch(flow_id: str, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Follow a flow until it has ended; the same as inspect --follow.

    \b
    Exit code 0 if it succeeded, 1 if not.

    \b
    Example:
      taskharbor flow watch 01a200915b15b65dc5cae7213906
    """
    with open_app(url, app_path) as app, _asked_for(app, flow_id) as asked:
        flow_view.follow(asked, as_json=as_json)


@flow.command()
@click.argument("flow_id")
@store_options
def cancel(flow_id: str, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Cancel what has not ended of a flow. Running jobs are asked to stop.

    \b
    Exit code 4 if it had ended already, 3 if there is no such flow.

    \b
    Example:
      taskharbor flow cancel 01a200915b15b65dc5cae7213906
    """
    from taskharbor.drivers.base import CancelVerdict

    with open_app(url, app_path) as app, _asked_for(app, flow_id) as asked:
        verdict = asked.cancel()
    finished = verdict is CancelVerdict.FINISHED
    if as_json:
        print_json({"id": flow_id, "verdict": str(verdict)})
    else:
        words = "had ended already" if finished else "nothing more of it is started"
        click.echo(f"{flow_id}: {words}", err=finished)
    if finished:
        click.get_current_context().exit(Exit.REFUSED)


@flow.command()
@click.argument("flow_id")
@store_options
def retry(flow_id: str, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Put the dead and cancelled jobs of a flow back in line; what waited for them comes back by
    itself, and jobs that succeeded are not run again.

    \b
    Exit code 4 if there is nothing to retry, 3 if there is no such flow.

    \b
    Example:
      taskharbor flow retry 01a200915b15b65dc5cae7213906
    """
    with open_app(url, app_path) as app, _asked_for(app, flow_id) as asked:
        count = asked.retry_failed()
    if as_json:
        print_json({"id": flow_id, "requeued": count})
    elif count:
        click.echo(f"{flow_id}: {count:,} {'job is' if count == 1 else 'jobs are'} in line again")
    else:
        click.echo(f"{flow_id}: nothing in it has failed", err=True)
    if not count:
        click.get_current_context().exit(Exit.REFUSED)


@flow.command()
@click.argument("flow_id")
@store_options
def delete(flow_id: str, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Delete a flow that has ended, with all its jobs and their results, for good.

    \b
    Exit code 4 if it has not ended (cancel it first), 3 if there is no such flow.

    \b
    Example:
      taskharbor flow delete 01a200915b15b65dc5cae7213906
    """
    from taskharbor.drivers.base import DeleteVerdict
    from taskharbor.flow.reading import no_flow

    with open_app(url, app_path) as app, _asked_for(app, flow_id):
        verdict = _flows(app).delete_flow(flow_id)
        if verdict is DeleteVerdict.NOT_FOUND:
            raise no_flow(flow_id)
    deleted = verdict is DeleteVerdict.DELETED
    if as_json:
        print_json({"id": flow_id, "verdict": str(verdict)})
    else:
        words = "deleted" if deleted else "has not ended; cancel it first"
        click.echo(f"{flow_id}: {words}", err=not deleted)
    if not deleted:
        click.get_current_context().exit(Exit.REFUSED)


@contextmanager
def _asked_for(app: TaskHarbor, flow_id: str) -> Iterator[FlowResult[Any]]:
    """The flow; where there is none, but a job with this id, that is what is said."""
    try:
        yield app.flow(flow_id)
    except JobNotFound as error:
        job = app.driver.get(flow_id)
        if job is None:
            raise
        of = f"of flow {job.flow}" if job.flow else "of no flow"
        message = f"{flow_id} is no flow but a job, {of}; taskharbor inspect shows it"
        raise JobNotFound(message, job_id=flow_id) from error


def _flows(app: TaskHarbor) -> FlowDriver:
    from taskharbor.flow.storing import flows_of

    return flows_of(app)

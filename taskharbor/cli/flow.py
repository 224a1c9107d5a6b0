"""``flow``: list flows, draw one, watch it, cancel it, retry what failed in it, delete it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from taskharbor.cli.exits import Exit
from taskharbor.cli.options import store_options
from taskharbor.cli.output import iso, local, print_json, print_table
from taskharbor.cli.paging import whole_page
from taskharbor.cli.target import open_app
from taskharbor.flow.plan import FlowState

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.flows import FlowDriver, FlowInfo
    from taskharbor.flow.drawing import Drawing

_FOLLOW_SECONDS = 0.5
_OVER = {FlowState.SUCCEEDED: Exit.OK, FlowState.FAILED: Exit.FAILED}


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
        print_json({"flows": [shape(info) for info in flows], "cursor": cursor})
        return
    if not flows:
        click.echo("There are no flows.")
        return
    rows = [
        (info.id, info.name, str(info.state), _count(info), local(info.created_at))
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
    with open_app(url, app_path) as app:
        if follow:
            _follow(app, flow_id, as_json)
            return
        drawing = app.flow(flow_id).graph()
    if as_json:
        print_json(_whole_shape(drawing))
    elif form is not None:
        click.echo(drawing.mermaid() if form == "mermaid" else drawing.dot())
    else:
        click.echo(_picture(drawing))


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
    with open_app(url, app_path) as app:
        _follow(app, flow_id, as_json)


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

    with open_app(url, app_path) as app:
        verdict = app.flow(flow_id).cancel()
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
    with open_app(url, app_path) as app:
        count = app.flow(flow_id).retry_failed()
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

    with open_app(url, app_path) as app:
        verdict = _flows(app).delete_flow(flow_id)
    deleted = verdict is DeleteVerdict.DELETED
    words = {
        DeleteVerdict.DELETED: "deleted",
        DeleteVerdict.RUNNING: "has not ended; cancel it first",
        DeleteVerdict.NOT_FOUND: f"there is no flow {flow_id}",
    }
    if as_json:
        print_json({"id": flow_id, "verdict": str(verdict)})
    else:
        click.echo(f"{flow_id}: {words[verdict]}", err=not deleted)
    if not deleted:
        missing = verdict is DeleteVerdict.NOT_FOUND
        click.get_current_context().exit(Exit.NOT_FOUND if missing else Exit.REFUSED)


# --- shapes and pictures --------------------------------------------------------------------------


def shape(info: FlowInfo) -> dict[str, Any]:
    """A flow's head, as ``--json`` prints it; see docs/cli.md."""
    return {
        "id": info.id,
        "name": info.name,
        "state": str(info.state),
        "size": info.size,
        "done": sum(info.finished.values()),
        "finished": {str(state): count for state, count in info.finished.items()},
        "created_at": iso(info.created_at),
        "finished_at": iso(info.finished_at),
        "expires_at": iso(info.expires_at),
        "idempotency_key": info.idempotency_key,
        "result_job": info.result,
        "parent_job": info.parent,
    }


def _whole_shape(drawing: Drawing) -> dict[str, Any]:
    nodes = [
        {
            "id": node.id,
            "task": node.task,
            "label": node.label,
            "state": str(node.state),
            "reason": str(node.reason),
            "errback": node.errback,
            "tolerated": node.tolerated,
        }
        for node in drawing.nodes
    ]
    edges = [
        {"from": edge.source, "to": edge.target, "kind": str(edge.kind)} for edge in drawing.edges
    ]
    return shape(drawing.info) | {"nodes": nodes, "edges": edges}


def _picture(drawing: Drawing) -> str:
    return f"{_headline(drawing.info)}\n\n{drawing.tree()}"


def _headline(info: FlowInfo) -> str:
    done = sum(info.finished.values())
    width = 24
    filled = width * done // info.size if info.size else width
    bar = "█" * filled + "░" * (width - filled)
    name = f" {info.name}" if info.name else ""
    return f"{info.id}{name}  {bar}  {_count(info)}  {info.state}"


def _count(info: FlowInfo) -> str:
    return f"{sum(info.finished.values()):,}/{info.size:,}"


def _follow(app: TaskHarbor, flow_id: str, as_json: bool) -> None:
    """Draw until the flow has ended; then exit as it did."""
    drawn = 0
    terminal = sys.stdout.isatty() and not as_json
    while True:
        drawing = app.flow(flow_id).graph()
        over = drawing.info.finished_at is not None
        if terminal:
            # Back to the top of the last picture: it is drawn over, not below.
            up = f"\x1b[{drawn}F\x1b[J" if drawn else ""
            picture = _picture(drawing)
            drawn = picture.count("\n") + 1
            click.echo(up + picture)
        if over:
            break
        time.sleep(_FOLLOW_SECONDS)
    if as_json:
        print_json(_whole_shape(drawing))
    elif not terminal:
        click.echo(_picture(drawing))
    click.get_current_context().exit(_OVER.get(drawing.info.state, Exit.FAILED))


def _flows(app: TaskHarbor) -> FlowDriver:
    from taskharbor.flow.storing import flows_of

    return flows_of(app)

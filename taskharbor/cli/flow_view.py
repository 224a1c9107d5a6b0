"""Flows for the screen: the shapes of their JSON, pictures, and pictures that follow a flow."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from taskharbor.cli.exits import Exit
from taskharbor.cli.output import iso, print_json
from taskharbor.flow.plan import FlowState

if TYPE_CHECKING:
    from taskharbor.drivers.flows import FlowInfo
    from taskharbor.flow.drawing import Drawing
    from taskharbor.flow.result import FlowResult

FOLLOW_SECONDS = 0.5
READING_SHARE = 0.2
"""At most, of the time of following: large flows take long to read."""
_BAR = 24
_OVER = {FlowState.SUCCEEDED: Exit.OK, FlowState.FAILED: Exit.FAILED}


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


def whole_shape(drawing: Drawing) -> dict[str, Any]:
    """The same with all nodes and edges."""
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


def picture(drawing: Drawing) -> str:
    return f"{_headline(drawing.info)}\n\n{drawing.tree()}"


def count_done(info: FlowInfo) -> str:
    return f"{sum(info.finished.values()):,}/{info.size:,}"


def _headline(info: FlowInfo) -> str:
    done = sum(info.finished.values())
    filled = _BAR * done // info.size if info.size else _BAR
    bar = "█" * filled + "░" * (_BAR - filled)
    name = f" {info.name}" if info.name else ""
    return f"{info.id}{name}  {bar}  {count_done(info)}  {info.state}"


# --- following ----------------------------------------------------------------------------------


def follow(flow: FlowResult[Any], *, as_json: bool) -> None:
    """On a terminal, draw until the flow has ended; elsewhere print it then. Exits as it ended."""
    if sys.stdout.isatty() and not as_json:
        state = _redraw(flow)
    else:
        while flow.info().finished_at is None:
            time.sleep(FOLLOW_SECONDS)
        drawing = flow.graph()
        state = drawing.info.state
        if as_json:
            print_json(whole_shape(drawing))
        else:
            click.echo(picture(drawing))
    click.get_current_context().exit(_OVER.get(state, Exit.FAILED))


def _redraw(flow: FlowResult[Any]) -> FlowState:
    drawn = 0
    while True:
        began = time.monotonic()
        drawing = flow.graph()
        over = drawing.info.finished_at is not None
        # Back to the top of the last picture: it is drawn over, not below.
        up = f"\x1b[{drawn}F\x1b[J" if drawn else ""
        shown = picture(drawing)
        if not over:  # no way leads back to what went out of the screen
            shown = fitted(shown, *shutil.get_terminal_size())
        drawn = shown.count("\n") + 1
        click.echo(up + shown)
        if over:
            return drawing.info.state
        time.sleep(max(FOLLOW_SECONDS, (time.monotonic() - began) / READING_SHARE))


def fitted(text: str, columns: int, rows: int) -> str:
    """As much of ``text`` as a terminal shows, the cursor's line left free."""
    lines = [line[: max(columns - 1, 1)] for line in text.splitlines()]
    room = max(rows - 1, 2)
    if len(lines) <= room:
        return "\n".join(lines)
    return "\n".join([*lines[: room - 1], f"… and {len(lines) - room + 1:,} more lines"])

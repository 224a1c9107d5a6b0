"""What an attempt does that others do not, when its job takes part in a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskharbor import codec
from taskharbor.flow.inputs import as_flows, read_arguments

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.lease import Reservation
    from taskharbor.message import Call
    from taskharbor.task import Task
    from taskharbor.wiring import Wiring


def glue(app: TaskHarbor, name: str) -> Task[..., Any] | None:
    """One of the tasks that flows are glued with, and that no app declares."""
    if not name.startswith("taskharbor."):
        return None
    from taskharbor.flow.tasks import find

    return find(app, name)


def wired_arguments(
    app: TaskHarbor, job: Reservation, call: Call, wiring: Wiring, task: Task[..., Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a job that takes results of others. Raises like ``read_arguments``."""
    given = read_arguments(as_flows(app.driver), job.id, wiring)
    args, kwargs = codec.decode_call(call.payload)
    args, kwargs = [*given.args, *args], {**kwargs, **given.kwargs}
    # An exception fits no annotation, and what tasks return arrives as itself.
    if task.rebuild is None or given.failures:
        return args, kwargs
    return task.rebuild(args, kwargs)

"""Jobs as commands show them: the stable JSON shapes of docs/cli.md, and their form for people.

Whatever bytes a store holds, a job can be looked at: what can't be decoded is named under
``problems`` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from taskharbor import codec
from taskharbor.cli.output import iso, local, plain, print_fields, print_table
from taskharbor.drivers.base import Attempt, Job
from taskharbor.errors import DecodeError
from taskharbor.flow.gathered import Gathered
from taskharbor.message import read_body
from taskharbor.states import State

Shape = dict[str, Any]


def brief(job: Job) -> Shape:
    """What a list shows of a job."""
    return {
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "state": str(job.state),
        "reason": str(job.reason),
        "priority": job.priority,
        "attempts": job.attempts,
        "losses": job.losses,
        "enqueued_at": iso(job.enqueued_at),
        "due_at": iso(job.due_at),
        "started_at": iso(job.reserved_at),
        "lease_expires_at": iso(job.lease_expires_at),
        "finished_at": iso(job.finished_at),
        "expires_at": iso(job.expires_at),
        "holder": job.holder,
        "cancel_requested": job.cancel_requested,
        "idempotency_key": job.idempotency_key,
        "flow": job.flow,
        "awaits": job.awaits,
        "progress": _progress(job.progress),
        "error": failure(job.error, whole=False),
    }


def full(job: Job) -> Shape:
    """All that the store knows of a job."""
    problems: list[str] = []
    shape = brief(job) | {
        "fence": job.fence,
        **_call(job.body, problems),
        "result": _value("result", job.result, problems),
        "result_stored": job.result is not None,
        "saved": _value("saved", job.saved, problems),
        "error": failure(job.error),
        "history": [_attempt(attempt) for attempt in job.history],
    }
    return shape | {"problems": problems}


def failure(error: bytes | None, *, whole: bool = True) -> Shape | None:
    """``type`` and ``message``; as a whole also ``traceback`` and ``causes``."""
    if error is None:
        return None
    try:
        found = codec.Failure.decode(error)
    except DecodeError as problem:
        return {"type": None, "message": f"the stored error can't be read: {problem}"}
    shape: Shape = {"type": _type_name(found), "message": found.message}
    if whole:
        shape["traceback"] = found.traceback or None
        shape["causes"] = [
            {"type": _type_name(cause), "message": cause.message} for cause in _causes(found)
        ]
    return shape


def _type_name(found: codec.Failure) -> str:
    plain_name = found.module in ("", "builtins")
    return found.type if plain_name else f"{found.module}.{found.type}"


def _causes(found: codec.Failure) -> Iterable[codec.Failure]:
    cause = found.cause
    while cause is not None:
        yield cause
        cause = cause.cause


def _attempt(attempt: Attempt) -> Shape:
    return {
        "number": attempt.number,
        "fence": attempt.fence,
        "holder": attempt.holder,
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "seconds": round(attempt.ended_at - attempt.started_at, 6),
        "reason": str(attempt.reason),
        "error": failure(attempt.error),
    }


def _call(body: bytes, problems: list[str]) -> Shape:
    shape: Shape = dict.fromkeys(
        ("args", "kwargs", "timeout", "max_attempts", "max_losses", "backoff", "headers")
    )
    try:
        call = read_body(body)
    except DecodeError as problem:
        problems.append(f"body: {problem}")
        return shape
    policy = call.policy
    shape |= {
        "timeout": call.timeout,
        "max_attempts": policy.max_attempts,
        "max_losses": policy.max_losses,
        "backoff": None if policy.backoff is None else list(policy.backoff),
        "headers": plain(call.headers),
    }
    arguments = _decoded("arguments", call.payload, codec.decode_call, problems)
    if arguments is not None:
        shape["args"], shape["kwargs"] = map(plain, arguments)
    return shape


def _value(what: str, data: bytes | None, problems: list[str]) -> Any:
    return None if data is None else plain(_decoded(what, data, _value_or_gathered, problems))


def _value_or_gathered(data: bytes) -> Any:
    """The value; of a join in a flow, what stands for its list."""
    gathered = Gathered.decode(data)
    return codec.decode(data) if gathered is None else {"results_of_predecessors": gathered.size}


def _decoded(what: str, data: bytes, decode: Callable[[bytes], Any], problems: list[str]) -> Any:
    try:
        return decode(data)
    except DecodeError as problem:
        problems.append(f"{what}: {problem} (with -A APP, the app's classes are known)")
        return None


def _progress(data: bytes | None) -> Shape | None:
    if data is None:
        return None
    try:
        fraction, message = codec.decode(data)
    except (DecodeError, TypeError, ValueError):  # written by something else than progress()
        return None
    return {"fraction": plain(fraction), "message": plain(message)}


# --- for people -------------------------------------------------------------------------------


def print_jobs(jobs: Sequence[Job]) -> None:
    """A table of jobs; says so when there are none."""
    if not jobs:
        click.echo("No jobs.")
        return
    headers = ("ID", "STATE", "TASK", "QUEUE", "ATTEMPTS", "SINCE", "WHY")
    print_table(headers, [_row(job) for job in jobs])


def _row(job: Job) -> tuple[object, ...]:
    since = job.finished_at or job.reserved_at or job.due_at
    error = None if job.state is State.SUCCEEDED else _one_line(job.error)
    why = f"{job.reason}: {error}" if error else job.reason
    return (job.id, job.state, job.task, job.queue, job.attempts, local(since), why)


def _one_line(error: bytes | None) -> str | None:
    """A failure for a table's cell."""
    shape = failure(error, whole=False)
    if shape is None:
        return None
    text = " ".join(f"{shape['type'] or ''} {shape['message']}".split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def print_job(job: Job) -> None:
    """All that is known of a job, for reading."""
    shape = full(job)
    attempts = f"{job.attempts} of {shape['max_attempts'] or '?'}"
    progress = shape["progress"]
    print_fields(
        {
            "id": job.id,
            "task": job.task,
            "state": f"{job.state} ({job.reason})",
            "queue": f"{job.queue} (priority {job.priority})",
            "arguments": _show_call(shape),
            "attempts": f"{attempts}, {job.losses} lost" if job.losses else attempts,
            "enqueued": local(job.enqueued_at),
            "due": local(job.due_at) if job.finished_at is None else None,
            "started": local(job.reserved_at),
            "lease until": local(job.lease_expires_at),
            "holder": job.holder,
            "finished": local(job.finished_at),
            "expires": local(job.expires_at),
            "timeout": f"{shape['timeout']:g} s" if shape["timeout"] else "none",
            "key": job.idempotency_key,
            "flow": job.flow,
            "awaits flow": job.awaits,
            "headers": shape["headers"] or None,
            "cancel": "requested" if job.cancel_requested else None,
            "progress": progress and f"{progress['fraction']:.0%} {progress['message']}",
            "saved": shape["saved"],
            "result": shape["result"] if shape["result_stored"] else None,
            "problems": "\n".join(shape["problems"]) or None,
        }
    )
    _print_history(job.history)
    if shape["error"] is not None:
        click.echo()
        click.secho("Last error", bold=True)
        click.echo(error_text(shape["error"]))


def _show_call(shape: Shape) -> str | None:
    if shape["args"] is None:
        return None
    words = [*map(repr, shape["args"]), *(f"{k}={v!r}" for k, v in shape["kwargs"].items())]
    text = f"({', '.join(words)})"
    return text if len(text) <= 500 else f"{text[:500]}… (all with --json)"


def _print_history(history: Sequence[Attempt]) -> None:
    if not history:
        return
    click.echo()
    rows = [
        (
            attempt.number,
            attempt.reason,
            f"{attempt.ended_at - attempt.started_at:.3f} s",
            local(attempt.ended_at),
            _one_line(attempt.error),
        )
        for attempt in history
    ]
    print_table(("ATTEMPT", "ENDED", "TOOK", "AT", "ERROR"), rows)


def error_text(shape: Shape) -> str:
    """A failure as text: its traceback, or what there is instead."""
    traceback: str | None = shape.get("traceback")
    return traceback.rstrip() if traceback else f"{shape['type']}: {shape['message']}"

"""``result``: what a job returned, or why it did not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from taskharbor.cli.exits import Exit
from taskharbor.cli.options import seconds, store_options
from taskharbor.cli.output import plain, print_json
from taskharbor.cli.target import open_store
from taskharbor.errors import ConfigurationError, DecodeError
from taskharbor.states import State

if TYPE_CHECKING:
    from taskharbor.drivers.base import InspectableDriver, Outcome


@click.command()
@click.argument("job_id")
@click.option("--wait", type=seconds, default=0.0, help="Wait so long for it to finish.")
@store_options
def result(job_id: str, wait: float, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Print what a job returned, as JSON; or its error, on standard error.

    \b
    Exit code 0: it succeeded. 1: it is dead or cancelled. 3: there is no such job.
    5: it is not finished yet.

    \b
    Examples:
      taskharbor result 01a200915b15b65dc5cae7213906 --wait 1m
      taskharbor result 01a200915b15b65dc5cae7213906 --json | jq .result
    """
    with open_store(url, app_path) as driver:
        show_result(driver, job_id, wait, as_json)


def show_result(driver: InspectableDriver, job_id: str, wait: float, as_json: bool) -> None:
    """Print how the job ended; ends the command with the exit code that says the same."""
    found = driver.wait_results((job_id,), wait) if wait else driver.results((job_id,))
    outcome = found[0]
    if outcome is None:
        from taskharbor.result import not_found

        raise not_found(job_id)
    value = _value(driver, job_id, outcome.result)
    if as_json:
        print_json(_shape(job_id, outcome, value))
    else:
        _print(job_id, outcome, value)
    click.get_current_context().exit(_exit(outcome.state))


def _exit(state: State) -> Exit:
    if state is State.SUCCEEDED:
        return Exit.OK
    return Exit.FAILED if state.terminal else Exit.UNFINISHED


def _shape(job_id: str, outcome: Outcome, value: Any) -> dict[str, Any]:
    from taskharbor.cli.views import failure

    return {
        "id": job_id,
        "state": str(outcome.state),
        "reason": str(outcome.reason),
        "result": value,
        "result_stored": outcome.result is not None,
        "error": failure(outcome.error),
    }


def _print(job_id: str, outcome: Outcome, value: Any) -> None:
    from taskharbor.cli.views import error_text, failure

    if outcome.state is State.SUCCEEDED:
        if outcome.result is None:
            click.echo("The job succeeded; its task keeps no results.", err=True)
        else:
            click.echo(json.dumps(value, ensure_ascii=False, indent=2))
        return
    click.echo(f"Job {job_id} is {outcome.state} ({outcome.reason}).", err=True)
    error = failure(outcome.error)
    if error is not None:
        click.echo(error_text(error), err=True)


def _value(driver: InspectableDriver, job_id: str, result: bytes | None) -> Any:
    """The result as JSON has it; of a join in a flow, the list that it stands for. Raises
    ConfigurationError for a value of a class that is not imported here."""
    from taskharbor import codec
    from taskharbor.flow.gathered import Gathered
    from taskharbor.flow.inputs import as_flows, read_list

    if result is None:
        return None
    try:
        gathered = Gathered.decode(result)
        if gathered is not None:
            return plain(read_list(as_flows(driver), job_id, gathered))
        return plain(codec.decode(result))
    except DecodeError as error:
        raise ConfigurationError(
            f"the result can't be shown: {error}. With -A APP, the app's classes are known"
        ) from error

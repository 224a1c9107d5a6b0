"""``demo``: the whole product in ten seconds, on a file of its own."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskharbor.cli.exits import Exit
from taskharbor.cli.options import json_option
from taskharbor.cli.output import print_fields, print_json

if TYPE_CHECKING:
    from taskharbor.cli.demo.play import Stage, Summary


@click.command()
@click.option(
    "--rows",
    type=click.IntRange(500, 1_000_000),
    default=5000,
    show_default=True,
    help="Orders in the file.",
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Child processes.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="An empty directory for the demo's files; default: a new temporary one.",
)
@json_option
@click.pass_context
def demo(
    ctx: click.Context, /, rows: int, concurrency: int, directory: Path | None, as_json: bool
) -> None:
    """Import a file of orders with a fan-out over child processes, kill one of them in the middle
    (SIGKILL), and prove that no row is lost or doubled. Everything happens in SQLite files in one
    directory, which stays for you to look at.

    \b
    Exit code 1 if the proof fails.

    \b
    Examples:
      taskharbor demo
      taskharbor demo --rows 20000 -c 4
      taskharbor demo --json | jq .recovery_seconds
    """
    from taskharbor.cli.demo.play import Stage, play

    stage = Stage(_empty(directory))
    if as_json:
        summary = play(stage, rows, concurrency, _say_nothing)
        print_json(_shape(summary))
    else:
        click.echo(f"{rows:,} orders, {concurrency} child processes, all in {stage.directory}")
        summary = _play_with_bar(stage, rows, concurrency)
        _print(summary)
    if summary.problems:
        ctx.exit(Exit.FAILED)


def _say_nothing(imported: int, kills: int) -> None:
    """For programs, which read the summary."""


def _empty(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="taskharbor-demo-"))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        filled = any(directory.iterdir())
    except OSError as error:
        raise click.BadParameter(f"{directory} can't be used: {error.strerror}") from error
    if filled:
        raise click.BadParameter(f"{directory} is not empty; name a new directory")
    return directory


def _play_with_bar(stage: Stage, rows: int, concurrency: int) -> Summary:
    from taskharbor.cli.demo.play import play

    with click.progressbar(length=rows, label="importing", show_pos=True) as bar:

        def on_progress(imported: int, kills: int) -> None:
            if kills:
                bar.label = "importing (killed a child)"
            bar.update(imported - bar.pos)

        return play(stage, rows, concurrency, on_progress)


def _shape(summary: Summary) -> dict[str, Any]:
    per_second = {
        "jobs_per_second": round(summary.jobs / summary.seconds, 1),
        "rows_per_second": round(summary.rows / summary.seconds, 1),
    }
    return {
        "ok": not summary.problems,
        "problems": summary.problems,
        **asdict(summary),
        **per_second,
    }


def _print(summary: Summary) -> None:
    shape = _shape(summary)
    matches = summary.checksum == summary.checksum_expected
    again = f"{summary.recovery_seconds:.2f} s later" if summary.recovery_seconds else "never"
    click.echo()
    print_fields(
        {
            "rows imported": f"{summary.rows:,} of {summary.rows_expected:,}; "
            f"{summary.rows_written_again} of them written again after the crash",
            "jobs": f"{summary.jobs}, {summary.succeeded} succeeded",
            "retries": f"{summary.retries} (every tenth chunk fails once, on purpose)",
            "crashes": f"{summary.crashes} recovered; {summary.kills} killed with SIGKILL, "
            f"the job begun again {again}",
            "time": f"{summary.seconds:.1f} s, {shape['jobs_per_second']} jobs/s, "
            f"{shape['rows_per_second']:,} rows/s",
            "checksum": f"{summary.checksum[:16]}… {'=' if matches else '≠'} the file's: "
            f"{'nothing lost, nothing doubled' if matches else 'rows are lost or wrong'}",
        }
    )
    click.echo()
    for problem in summary.problems:
        click.secho(f"The proof fails: {problem}", fg="red", err=True)
    _print_what_is_left(summary)


def _print_what_is_left(summary: Summary) -> None:
    """Commands to look at it with."""
    click.secho("Look at what is left:", bold=True)
    click.echo(f"  export TASKHARBOR_URL={shlex.quote(summary.url)}")
    click.echo("  taskharbor list")
    if summary.interrupted_job is not None:
        app = "-A taskharbor.cli.demo.tasks"
        click.echo(f"  taskharbor inspect {summary.interrupted_job} {app}   # what was killed")
    click.echo("  taskharbor queues")
    click.echo(f"  rm -r {shlex.quote(summary.directory)}   # when you are done")

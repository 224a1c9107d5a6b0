"""The command ``taskharbor`` itself: finds the subcommand, and turns errors into exit codes."""

from __future__ import annotations

import sys
from importlib import import_module
from traceback import format_exception
from typing import Any, NamedTuple

import click

from taskharbor import __version__
from taskharbor.cli.exits import Exit, exit_for
from taskharbor.cli.output import print_error
from taskharbor.errors import TaskHarborError


class _Entry(NamedTuple):
    """Where a subcommand is found, and what ``--help`` says of it without importing it."""

    module: str
    attribute: str
    summary: str


_SECTIONS: dict[str, dict[str, _Entry]] = {
    "Run jobs": {
        "worker": _Entry("worker", "worker", "Run jobs in child processes."),
        "maintenance": _Entry("worker", "maintenance", "Reclaim, schedule and prune, alone."),
    },
    "Jobs": {
        "enqueue": _Entry("enqueue", "enqueue", "Put a job in line."),
        "list": _Entry("jobs", "list_jobs", "List jobs, newest first."),
        "inspect": _Entry("jobs", "inspect", "Show all that is known of a job."),
        "result": _Entry("result", "result", "Print what a job returned."),
        "cancel": _Entry("jobs", "cancel", "Cancel jobs."),
        "job": _Entry("jobs", "job", "Retry or delete single jobs."),
        "dlq": _Entry("dlq", "dlq", "Look at dead jobs, requeue them, purge them."),
        "flow": _Entry("flow", "flow", "Draw, watch, cancel, retry or delete flows."),
        "queues": _Entry("queues", "queues", "Count jobs by queue; pause and resume queues."),
    },
    "Try and check": {
        "demo": _Entry("demo.command", "demo", "Import a file, kill a worker, lose nothing."),
        "doctor": _Entry("doctor", "doctor", "Check the store and the settings."),
        "migrate": _Entry("migrate", "migrate", "Bring the store's schema up to date."),
    },
}
_ENTRIES = {name: entry for section in _SECTIONS.values() for name, entry in section.items()}


class Root(click.Group):
    """Imports a subcommand when it is called: ``taskharbor --help`` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        module = import_module(f"taskharbor.cli.{entry.module}")
        command: click.Command = getattr(module, entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in section.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in Exit])
        super().format_epilog(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message}{_suggestion(args[0])}", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TaskHarborError as error:
            print_error(ctx, error)
            ctx.exit(exit_for(error))
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(Exit.INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows how these end
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no outcome we know
            if ctx.params["traceback"]:
                click.echo("".join(format_exception(error)), err=True, nl=False)
            print_error(ctx, Unforeseen(error))
            ctx.exit(Exit.INTERNAL)


class Unforeseen(TaskHarborError):
    """An exception that no command raises on purpose."""

    def __init__(self, error: Exception) -> None:
        shown = f"{type(error).__name__}: {error}".rstrip(": ")
        super().__init__(
            f"{shown}. This should not happen: please report it, with the traceback that "
            "'taskharbor --traceback …' shows"
        )


def _suggestion(word: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, _ENTRIES, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Try it: taskharbor demo. Every command explains itself with --help.",
)
@click.version_option(
    __version__,
    message=f"taskharbor %(version)s (Python {'.'.join(map(str, sys.version_info[:3]))})",
)
@click.option("--traceback", is_flag=True, help="Show where an unforeseen error came from.")
def cli(traceback: bool) -> None:
    """Durable background jobs: run workers, put jobs in line, look at them and steer them.

    The store is named by --url, else by the app (-A), else by the environment variable
    TASKHARBOR_URL, else it is sqlite:///taskharbor.db.
    """

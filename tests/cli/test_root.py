"""The command line as a whole: help, exit codes, errors, start-up."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from taskharbor import __version__, errors
from taskharbor.cli.doctor import doctor
from taskharbor.cli.exits import Exit, exit_for
from taskharbor.cli.root import cli

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"


def all_commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            found += [(name, inner) for inner in command.commands]
            if not command.invoke_without_command:
                continue
        found.append((name,))
    return found


def invoke(*words: str) -> str:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_shows_an_example_of_itself(words: tuple[str, ...]) -> None:
    assert f"taskharbor {' '.join(words)}" in invoke(*words, "--help").partition("Example")[2]


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_is_documented(words: tuple[str, ...]) -> None:
    assert f"taskharbor {' '.join(words)}" in DOCUMENT.read_text()


def test_exit_codes_are_in_the_help_and_in_the_document() -> None:
    shown, document = " ".join(invoke("--help").split()), DOCUMENT.read_text()
    for code in Exit:
        assert f"{int(code)} {code.meaning}" in shown
        assert f"| {int(code)} | {code.meaning} |" in document


def test_every_error_has_an_exit_code_of_its_kind() -> None:
    assert exit_for(errors.JobNotFound("", job_id="a")) is Exit.NOT_FOUND
    assert exit_for(errors.StoreFull("")) is Exit.STORE
    assert exit_for(errors.UnknownDriver("")) is Exit.CONFIGURATION
    assert exit_for(errors.PayloadTooLarge("")) is Exit.USAGE
    assert exit_for(errors.KeyHeld("", job_id="a")) is Exit.REFUSED


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """``doctor`` with a bug in it."""

    def fail(**options: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(doctor, "callback", fail)


def test_a_bug_ends_with_its_own_code_and_one_line(broken: None) -> None:
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == Exit.INTERNAL
    assert result.stdout == ""
    assert result.stderr.startswith("Error: RuntimeError: no such luck. This should not happen")
    assert result.stderr.count("\n") == 1


def test_a_bug_shows_its_traceback_on_demand(broken: None) -> None:
    result = CliRunner().invoke(cli, ["--traceback", "doctor", "--json"])
    assert result.exit_code == Exit.INTERNAL
    *traceback, last = result.stderr.splitlines()
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "RuntimeError: no such luck"
    assert json.loads(last)["error"]["message"].startswith("RuntimeError: no such luck")


def test_version() -> None:
    assert invoke("--version").startswith(f"taskharbor {__version__} (Python 3.")


def test_help_imports_no_command() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from taskharbor.cli.root import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "print([name for name in sys.modules if name.startswith('taskharbor.cli.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout
    assert "taskharbor.cli.root" in loaded
    assert "taskharbor.cli.jobs" not in loaded
    assert "taskharbor.cli.worker" not in loaded


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskharbor", "lisst"], capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.USAGE
    assert "Did you mean 'list'?" in done.stderr

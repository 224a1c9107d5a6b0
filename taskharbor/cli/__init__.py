"""The command line: ``taskharbor`` and ``python -m taskharbor``."""

from __future__ import annotations


def main() -> None:
    """Run the command that ``sys.argv`` names; ends the process with an exit code of
    ``taskharbor.cli.exits``."""
    from taskharbor.cli.root import cli

    cli(prog_name="taskharbor")

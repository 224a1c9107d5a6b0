"""The command line: ``taskharbor`` and ``python -m taskharbor``."""

from __future__ import annotations


def main() -> None:
    """Run the command that ``sys.argv`` names; ends the process with an exit code of
    ``taskharbor.cli.exits``."""
    import io
    import sys

    from taskharbor.cli.root import cli

    # A name or a picture may hold what the terminal's encoding does not have.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    cli(prog_name="taskharbor")

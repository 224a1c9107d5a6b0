"""``doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import click

from taskharbor.cli.exits import Exit
from taskharbor.cli.options import store_options
from taskharbor.cli.output import print_json

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@store_options
@click.pass_context
def doctor(ctx: click.Context, /, url: str | None, app_path: str | None, as_json: bool) -> None:
    """Check versions, limits, the app, the settings, permissions, disk, the store and its clock,
    and whether jobs are looked after. Whatever is not right comes with its remedy.

    \b
    Exit code 1 if something fails; warnings alone give 0.

    \b
    Examples:
      taskharbor doctor
      taskharbor doctor -A shop.tasks --json
    """
    from dataclasses import asdict

    from taskharbor.cli.checks import Finding, Level, examine

    findings: list[Finding] = []
    for finding in examine(url, app_path):
        findings.append(finding)
        if not as_json:
            _print(finding.level, finding.check, finding.found, finding.remedy)
    ok = all(finding.level is not Level.FAIL for finding in findings)
    if as_json:
        print_json({"ok": ok, "findings": [asdict(finding) for finding in findings]})
    if not ok:
        ctx.exit(Exit.FAILED)


def _print(level: str, check: str, found: str, remedy: str | None) -> None:
    click.echo(f"{click.style(level.ljust(4), fg=_COLOURS[level])}  {check:<12} {found}")
    if remedy is not None:
        click.echo(f"{'':<18} → {remedy}")

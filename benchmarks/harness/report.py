"""The report in its forms: JSON, the tables of a docs page, lines on a terminal.

JSON is one object::

    {"schema": 1, "kind": "worker", "date": "2026-01-31", "rounds": 5,
     "environment": {"taskharbor": …, "python": …, "system": …, "machine": …, "cpus": 2,
                     "versions": {"redis": …}},
     "figures": [{"subject": "redis", "name": "noop", "title": …, "unit": "jobs/s",
                  "group": "throughput", "values": […], "median": …, "low": …, "high": …}],
     "errors": {"subject": "why it could not be measured"},
     "notes": {"subject": {…}}}

``values`` are the rounds in order. Names of machines, people and paths are never in it.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.figures import Figure, Metric, as_json, cell
from taskharbor import __version__

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Report:
    """``versions`` are those of the subjects; ``notes`` are further facts about each."""

    kind: str
    rounds: int
    figures: Sequence[Figure]
    versions: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "date": datetime.now(UTC).date().isoformat(),
            "rounds": self.rounds,
            "environment": environment(self.versions),
            "figures": as_json(self.figures),
            "errors": dict(self.errors),
            "notes": {name: dict(facts) for name, facts in self.notes.items()},
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")


def environment(versions: Mapping[str, str]) -> dict[str, Any]:
    return {
        "taskharbor": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "versions": {name: version for name, version in versions.items() if version},
    }


def described(report: Report) -> str:
    """The line above a table: when, on what, how often."""
    facts = report.as_json()
    about = facts["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    times = "1 round" if report.rounds == 1 else f"{report.rounds} rounds"
    return (
        f"{facts['date']}, TaskHarbor {about['taskharbor']}, Python {about['python']}, "
        f"{about['cpus']} CPUs, {times}; {versions}."
    )


def table(figures: Iterable[Figure], subjects: Sequence[str]) -> str:
    """Markdown: a row for each metric, a column for each subject."""
    found = {(figure.subject, figure.metric): figure for figure in figures}
    metrics = dict.fromkeys(metric for _, metric in found)
    rows = [
        [f"{metric.title} ({metric.unit})"]
        + [cell(found.get((subject, metric))) for subject in subjects]
        for metric in metrics
    ]
    return markdown(["", *subjects], rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def by_group(figures: Iterable[Figure]) -> dict[str, list[Figure]]:
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.metric.group, []).append(figure)
    return groups


def replace_section(page: Path, name: str, content: str) -> None:
    """Put ``content`` between the page's marks ``<!-- benchmark:name -->`` and ``<!-- end -->``.

    Raises ValueError when the page has no such marks: figures must not get lost silently.
    """
    text = page.read_text()
    marks = re.compile(rf"(<!-- benchmark:{re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"{page.name} has no place for the section {name!r}")
    page.write_text(marks.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text))


def write_charts(page: Path, charts: Mapping[str, str]) -> None:
    """Each as ``charts/NAME.svg`` beside the page."""
    directory = page.parent / "charts"
    directory.mkdir(exist_ok=True)
    for name, chart in charts.items():
        (directory / f"{name}.svg").write_text(chart)


def show(figures: Iterable[Figure]) -> None:
    for figure in figures:
        metric: Metric = figure.metric
        what = f"{metric.group}: {metric.title}"
        print(f"{figure.subject:28}{what:52}{cell(figure):>32}  {metric.unit}", flush=True)

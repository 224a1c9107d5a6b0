"""Charts as SVG, written by hand: bars with the range of the rounds, and lines over a log scale.

No plotting library: what a page of figures needs is a hundred lines, the files stay small, and a
diff of them can be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape

from harness.figures import Figure, rounded

WIDTH = 760
LEFT = 190
RIGHT = 130
BAR = 16
GAP = 6
PLOT = WIDTH - LEFT - RIGHT
COLOURS = {
    "memory": "#9467bd",
    "sqlite": "#1f77b4",
    "redis": "#d62728",
    "postgres": "#2ca02c",
    "taskharbor": "#1f77b4",
}
GREY = "#7f7f7f"


def worker_charts(figures: Sequence[Figure]) -> dict[str, str]:
    """By group: what the page shows of a run of the worker. Groups without figures are left out."""
    wanted = {
        "throughput": "Jobs a second, two children",
        "cost": "CPU seconds for 1,000 no-op jobs",
        "pickup": "From delay() to the job's first line, idle worker (ms)",
    }
    charts = {
        group: bars(title, found)
        for group, title in wanted.items()
        if (found := [one for one in figures if one.metric.group == group])
    }
    if backlog := [one for one in figures if one.metric.group == "backlog"]:
        charts["backlog"] = lines("Jobs a second, by how many jobs wait", backlog)
    return charts


def peer_charts(figures: Sequence[Figure]) -> dict[str, str]:
    """By group (a store, perhaps with the kind of work): how fast each system drains its jobs."""
    return {
        group: bars(
            f"Jobs a second on {titled(group)}, two workers",
            [
                replace(one, subject=one.subject.removesuffix(f", {group}"))
                for one in figures
                if one.metric.group == group and one.metric.name.startswith("drain_")
            ],
        )
        for group in dict.fromkeys(figure.metric.group for figure in figures)
    }


def titled(group: str) -> str:
    """As the stores write their names."""
    return "SQLite" + group[6:] if group.startswith("sqlite") else group.capitalize()


def bars(title: str, figures: Sequence[Figure]) -> str:
    """Horizontal bars, one block for each metric; the line over a bar spans its rounds."""
    most = max(figure.high for figure in figures)
    drawn, y = [text(8, 20, title, size=14, weight="bold")], 40
    for metric in dict.fromkeys(figure.metric for figure in figures):
        drawn.append(text(8, y + 12, metric.title, weight="bold"))
        y += BAR + GAP
        for figure in (one for one in figures if one.metric == metric):
            drawn += bar(figure, y, most)
            y += BAR + GAP
        y += GAP
    return document(y + 4, drawn)


def bar(figure: Figure, y: int, most: float) -> list[str]:
    colour = COLOURS.get(figure.subject.split(",")[0], GREY)
    low, middle, high = (value / most * PLOT for value in (figure.low, figure.median, figure.high))
    centre = y + BAR / 2
    span = f'x1="{LEFT + low:.1f}" y1="{centre}" x2="{LEFT + high:.1f}" y2="{centre}"'
    return [
        text(LEFT - 8, y + 12, figure.subject, anchor="end"),
        f'<rect x="{LEFT}" y="{y}" width="{middle:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line {span} stroke="#222" stroke-width="2"/>',
        text(LEFT + high + 8, y + 12, f"{rounded(figure.median)} {figure.metric.unit[:6]}"),
    ]


def lines(title: str, figures: Sequence[Figure]) -> str:
    """Rates over a log scale of waiting jobs, a line for each subject, from a zero at the foot."""
    top, foot = 50, 330
    sizes = sorted({waiting(figure) for figure in figures})
    most = max(figure.high for figure in figures)
    spread = math.log(sizes[-1] / sizes[0]) or 1.0

    def place(size: int, value: float) -> tuple[float, float]:
        across = LEFT / 2 + math.log(size / sizes[0]) / spread * (WIDTH - LEFT)
        return across, foot - value / most * (foot - top)

    drawn = [text(8, 20, title, size=14, weight="bold"), *scale(most, top, foot)]
    drawn += [text(place(size, 0)[0], foot + 18, f"{size:,}", anchor="middle") for size in sizes]
    for subject, found in subjects(figures).items():
        drawn += line(subject, [place(waiting(one), one.median) for one in found])
    return document(foot + 30, drawn)


def scale(most: float, top: int, foot: int) -> list[str]:
    drawn = []
    for quarter in range(5):
        y = foot - quarter / 4 * (foot - top)
        drawn.append(
            f'<line x1="{LEFT / 2}" y1="{y}" x2="{WIDTH - LEFT / 2}" y2="{y}" stroke="#ddd"/>'
        )
        drawn.append(text(LEFT / 2 - 10, y + 4, rounded(most * quarter / 4), anchor="end"))
    return drawn


def line(subject: str, points: Sequence[tuple[float, float]]) -> list[str]:
    colour = COLOURS.get(subject, GREY)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points),
        text(x + 8, y + 4, subject, colour=colour),
    ]


def waiting(figure: Figure) -> int:
    return int(figure.metric.name.removeprefix("backlog_"))


def subjects(figures: Iterable[Figure]) -> Mapping[str, list[Figure]]:
    found: dict[str, list[Figure]] = {}
    for figure in figures:
        found.setdefault(figure.subject, []).append(figure)
    return found


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    anchor: str = "start",
    weight: str = "normal",
    colour: str = "#222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="{colour}">{escape(words)}</text>'
    )


def document(height: float, drawn: Sequence[str]) -> str:
    """White behind it: a page may be dark."""
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, ground, *drawn, "</svg>\n"])

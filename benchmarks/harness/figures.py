"""What was measured: one value a round for every (subject, metric), summed up only at the end.

A *subject* is what is compared: a store of ours, or another task queue.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """``name`` is stable (JSON and charts go by it), ``title`` is for people. ``group`` is the
    table it stands in."""

    name: str
    title: str
    unit: str
    group: str


@dataclass(frozen=True, slots=True)
class Figure:
    """All rounds of one metric on one subject; values in the metric's unit, in round order."""

    subject: str
    metric: Metric
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(slots=True)
class Record:
    """Collects values, and the errors of what could not be measured."""

    _values: dict[tuple[str, Metric], list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def add(self, subject: str, metric: Metric, value: float) -> None:
        self._values.setdefault((subject, metric), []).append(value)

    def figures(self) -> list[Figure]:
        """In the order in which each was first measured."""
        return [
            Figure(subject, metric, tuple(values))
            for (subject, metric), values in self._values.items()
        ]


def rounded(value: float) -> str:
    """Three digits: more would pretend to a precision that no such measurement has."""
    number = float(f"{value:.3g}")
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:g}"


def cell(figure: Figure | None) -> str:
    """``median (lowest–highest)``; only the median after one round; a dash for what is missing."""
    if figure is None:
        return "–"
    if len(figure.values) == 1:
        return rounded(figure.median)
    return f"{rounded(figure.median)} ({rounded(figure.low)}–{rounded(figure.high)})"


def as_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    return [
        {
            "subject": figure.subject,
            **figure.metric._asdict(),
            "values": list(figure.values),
            "median": figure.median,
            "low": figure.low,
            "high": figure.high,
        }
        for figure in figures
    ]

"""A whole worker on each store: ``nox -s benchmark``.

Without options a short form that shows that everything works. ``--minutes 20`` measures: as many
rounds as fit, medians and ranges into ``benchmarks/results/worker.json``, the tables of
``docs/benchmarks.md`` and the charts beside it. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.charts import worker_charts
from harness.figures import Record
from harness.report import Report, by_group, described, replace_section, show, table, write_charts
from harness.rounds import Step, in_rounds
from harness.stores import STORES, Store
from measurements import backlog, enqueueing, flows, recovery, throughput, waiting
from measurements.common import Value
from measurements.size import FULL, SHORT, Size

ROOT = Path(__file__).resolve().parents[1]


class Question(NamedTuple):
    name: str
    measure: Callable[[Store, Size], Iterator[Value]]
    most_rounds: int = 1_000


QUESTIONS = [
    Question("throughput", throughput.measure),
    Question("enqueue", enqueueing.measure),
    Question("waiting", waiting.measure, most_rounds=5),
    Question("recovery", recovery.measure),
    Question("flows", flows.measure),
    Question("backlog", backlog.measure, most_rounds=3),
]
SHORT_STORES = ("sqlite", "redis", "postgres")


def main() -> None:
    options = parsed()
    full = options.minutes is not None
    with ExitStack() as stack:
        record, size = Record(), FULL if full and not options.short else SHORT
        names = options.stores or (STORES if full else SHORT_STORES)
        stores = [stack.enter_context(STORES[name]()) for name in names]
        asked = [one for one in QUESTIONS if not options.only or one.name in options.only]
        steps = [step(one, store, size, record) for one in asked for store in stores]
        rounds = in_rounds(steps, minutes=options.minutes, rounds=options.rounds)
    versions = {store.name: store.version for store in stores}
    report = Report("worker", rounds, record.figures(), versions, record.errors)
    show(report.figures)
    if full:
        write(report, options.into, [store.name for store in stores])
    if report.errors:
        sys.exit(f"not all could be measured: {report.errors}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, help="measure for so long, and write the results")
    parser.add_argument("--short", action="store_true", help="little work, also with --minutes")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of the short form")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in QUESTIONS])
    parser.add_argument("--stores", nargs="+", choices=list(STORES))
    parser.add_argument("--into", type=Path, default=ROOT, help="the source tree to write into")
    return parser.parse_args()


def step(question: Question, store: Store, size: Size, record: Record) -> Step:
    title = f"{question.name}, {store.name}"

    def run() -> None:
        try:
            for metric, value in question.measure(store, size):
                record.add(store.name, metric, value)
        except Exception as error:  # noqa: BLE001 - one of them must not cost an hour of the others
            record.errors[title] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            traceback.print_exc()

    return Step(title, run, question.most_rounds)


def write(report: Report, into: Path, subjects: list[str]) -> None:
    report.write(into / "benchmarks" / "results" / "worker.json")
    page = into / "docs" / "benchmarks.md"
    charts = worker_charts(report.figures)
    write_charts(page, charts)
    parts = [described(report)]
    for group, figures in by_group(report.figures).items():
        parts.append(f"### {group.capitalize()}\n\n{table(figures, subjects)}")
        if group in charts:
            parts.append(f"![{group.capitalize()}](charts/{group}.svg)")
    parts += [f"Not measured in a round, {what}: {why}" for what, why in report.errors.items()]
    replace_section(page, "worker", "\n\n".join(parts))


if __name__ == "__main__":
    main()

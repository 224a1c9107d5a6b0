"""TaskHarbor beside other task queues, in one run: ``nox -s benchmark-peers``.

Each system drains the same no-op jobs with two worker processes on a server of its own with default
durability, all in turns. What is compared is the rate from the first job done to the last, how
fast one process enqueues, what a job costs in CPU, workers and the store's server apart, and how
soon idle workers start a job. ``peers/catalogue.py`` has versions, settings, and what becomes of a
job whose worker is killed.

Without ``--minutes`` one round, printed. With it as many rounds as fit, written into
``benchmarks/results/peers.json`` and ``docs/benchmarks.md``. A system that cannot be installed or
does not drain its jobs stands in the table with its error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.charts import peer_charts, titled
from harness.environments import NotInstalled, environment
from harness.figures import Figure, Metric, Record, cell, rounded
from harness.peers import Failed, Run, drain, server_versions
from harness.pickups import pickup
from harness.report import Report, described, markdown, replace_section, show, write_charts
from harness.rounds import Step, in_rounds
from peers.catalogue import BATCH_LOOP, PEERS, TASKHARBOR, Peer

from tests.servers.process import ServerFailed

ROOT = Path(__file__).resolve().parents[1]

KEPT = "results kept"
NOT_KEPT = "results not kept"
COST_UNIT = "CPU s per 1,000 jobs"
PICKUPS = 100
"""Jobs whose pickup is timed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all steps share. ``share`` of the catalogue's jobs are drained; ``pythons`` are those of
    the peers that could be installed."""

    record: Record
    share: float
    versions: dict[str, str]
    pythons: dict[Peer, str]

    def install(self, peer: Peer, environments: Path) -> None:
        try:
            self.pythons[peer] = environment(environments, peer.requirements, peer.python)
        except NotInstalled as error:
            self.failed(peer, error)
            return
        if peer.requirements:
            self.versions[peer.module.partition("_")[0]] = peer.requirements[0].partition("==")[2]

    def measure(self, peer: Peer, results: bool) -> None:
        """One drain, or the reason why there is none. A peer that failed once is left out of the
        rounds to come; what it did before stands."""
        if peer.subject in self.record.errors:
            return
        jobs = max(100, int(peer.jobs * self.share))
        try:
            found = drain(Run(peer, self.pythons[peer], jobs, results))
        except (Failed, ServerFailed) as error:
            self.failed(peer, error)
            return
        kind = KEPT if results else NOT_KEPT
        self.record.add(peer.subject, drain_metric(peer.section, kind), found.rate)
        if results:
            self.record.add(peer.subject, enqueue_metric(peer.section), found.enqueued)
        if results and found.cost is not None:
            workers, store = cost_metrics(peer.section)
            self.record.add(peer.subject, workers, found.cost.workers)
            if found.cost.store is not None:
                self.record.add(peer.subject, store, found.cost.store)

    def measure_pickup(self, peer: Peer) -> None:
        """As above, with results kept."""
        if peer.subject in self.record.errors:
            return
        jobs = max(20, int(PICKUPS * self.share))
        try:
            found = pickup(Run(peer, self.pythons[peer], jobs, results=True))
        except (Failed, ServerFailed) as error:
            self.failed(peer, error)
            return
        if found is None:
            print(f"{peer.subject} ran a job twice: this round says nothing of its pickup")
            return
        for metric, value in zip(pickup_metrics(peer.section), found, strict=True):
            self.record.add(peer.subject, metric, value)

    def failed(self, peer: Peer, error: Exception) -> None:
        self.record.errors[peer.subject] = " ".join(str(error).split())
        print(f"  {peer.subject}: {error}", flush=True)


def drain_metric(section: str, kind: str) -> Metric:
    return Metric(name_of("drain", section, kind), kind, "jobs/s", section)


def enqueue_metric(section: str) -> Metric:
    return Metric(name_of("enqueue", section), "enqueue", "jobs/s", section)


def cost_metrics(section: str) -> list[Metric]:
    """Of the workers, of the store; with results kept."""
    return [
        Metric(name_of("cpu", section, who), f"CPU of the {who}", COST_UNIT, section)
        for who in ("workers", "store")
    ]


def pickup_metrics(section: str) -> list[Metric]:
    return [
        Metric(name_of("pickup", section, percent), f"pickup, {percent}", "ms", section)
        for percent in ("p50", "p99")
    ]


def columns(section: str) -> list[Metric]:
    rates = [drain_metric(section, KEPT), drain_metric(section, NOT_KEPT), enqueue_metric(section)]
    one_by_one = section in {peer.section for peer in PEERS if not peer.work}
    return [*rates, *cost_metrics(section), *(pickup_metrics(section) if one_by_one else [])]


def name_of(*parts: str) -> str:
    return "_".join(" ".join(parts).replace(",", "").split())


def main() -> None:
    options = parsed()
    chosen = [
        peer
        for peer in PEERS
        if (not options.stores or peer.store in options.stores)
        and (not options.only or peer.name in options.only)
    ]
    with tempfile.TemporaryDirectory(prefix="benchmark-peers-") as scratch:
        versions = server_versions({peer.store for peer in chosen})
        comparison = Comparison(Record(), options.share, versions, {})
        for peer in chosen:
            print(f"installing {peer.name}", flush=True)
            comparison.install(peer, options.environments or Path(scratch))
        steps = [step for peer in chosen for step in steps_of(comparison, peer)]
        rounds = in_rounds(steps, minutes=options.minutes, rounds=options.rounds)
    report = finished(comparison, rounds, chosen)
    show(report.figures)
    if options.minutes is not None:
        write(report, options.into, chosen)


def steps_of(comparison: Comparison, peer: Peer) -> Iterator[Step]:
    for results in (True, False) if peer.optional_results else (True,):
        kind = KEPT if results else NOT_KEPT
        yield Step(f"{peer.subject}, {kind}", partial(comparison.measure, peer, results))
    if not peer.work:
        yield Step(f"{peer.subject}, pickup", partial(comparison.measure_pickup, peer))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, help="measure for so long, and write the results")
    parser.add_argument("--rounds", type=int, default=1, help="rounds without --minutes")
    parser.add_argument("--share", type=float, default=1.0, help="of the jobs; 0.1 for a try")
    parser.add_argument("--stores", nargs="+", choices=["redis", "postgres", "sqlite"])
    parser.add_argument("--only", nargs="+", choices=sorted({peer.name for peer in PEERS}))
    parser.add_argument("--environments", type=Path, help="where peers are installed, and stay")
    parser.add_argument("--into", type=Path, default=ROOT, help="the source tree to write into")
    return parser.parse_args()


def finished(comparison: Comparison, rounds: int, chosen: list[Peer]) -> Report:
    notes = {
        peer.subject: {
            "requirements": list(peer.requirements),
            "jobs": peer.jobs,
            "settings": peer.settings,
            "killed_worker": peer.killed,
            "source": peer.source,
        }
        for peer in chosen
    }
    record = comparison.record
    return Report("peers", rounds, record.figures(), comparison.versions, record.errors, notes)


def write(report: Report, into: Path, chosen: list[Peer]) -> None:
    report.write(into / "benchmarks" / "results" / "peers.json")
    page = into / "docs" / "benchmarks.md"
    charts = peer_charts(report.figures)
    write_charts(page, {chart_name(section): chart for section, chart in charts.items()})
    parts = [described(report)]
    for section in dict.fromkeys(peer.section for peer in chosen):
        title = f"On {titled(section)}"
        parts += [f"### {title}", table(report, chosen, section)]
        parts.append(where_peers_win(report, chosen, section))
        if section in charts:
            parts.append(f"![{title}](charts/{chart_name(section)}.svg)")
    parts += ["### With which settings, and what becomes of a killed worker's job", facts(chosen)]
    replace_section(page, "peers", "\n\n".join(filter(None, parts)))


def chart_name(section: str) -> str:
    return f"peers-{section.replace(', ', '-').replace(' ', '-')}"


def table(report: Report, chosen: list[Peer], section: str) -> str:
    """A row for each peer in the section; ratios are of medians, with results kept."""
    found = {(figure.subject, figure.metric): figure for figure in report.figures}
    kinds = columns(section)
    ours = found.get((f"{TASKHARBOR}, {section}", kinds[0]))
    rows = []
    for peer in (peer for peer in chosen if peer.section == section):
        figures = [found.get((peer.subject, metric)) for metric in kinds]
        cells = [*map(cell, figures), ratio(ours, figures[0])]
        if not any(figures):
            why = report.errors.get(peer.subject, "not in this run")
            cells = [f"could not be measured: {why}", *[""] * len(kinds)]
        rows.append([shown(peer), *cells])
    head = [*(f"{metric.title} ({metric.unit})" for metric in kinds), "ours is, times"]
    return markdown(["", *head], rows)


def shown(peer: Peer) -> str:
    return f"*{peer.name}*" if peer.name == BATCH_LOOP else peer.name


def facts(chosen: list[Peer]) -> str:
    """What each ran with; a chord's settings are those of its system's jobs."""
    rows = [
        [shown(peer), peer.store, peer.settings, f"{peer.killed} ({link(peer.source)})"]
        for peer in chosen
        if not peer.work
    ]
    return markdown(["", "store", "settings", "a killed worker's job"], rows)


def where_peers_win(report: Report, chosen: list[Peer], section: str) -> str:
    """A part for each column. The batch loop is no peer: it keeps no promise."""
    found = {(figure.subject, figure.metric): figure.median for figure in report.figures}
    rivals = [
        peer
        for peer in chosen
        if peer.section == section and peer.name not in (TASKHARBOR, BATCH_LOOP)
    ]
    parts = []
    for metric in columns(section):
        ours = found.get((f"{TASKHARBOR}, {section}", metric))
        if ours is None or metric.unit == COST_UNIT:
            continue
        sign = -1 if metric.unit == "ms" else 1  # the less, the better
        faster = [
            peer.name
            for peer in rivals
            if (theirs := found.get((peer.subject, metric))) is not None
            and sign * theirs > sign * ours
        ]
        parts.append(f"{metric.title}: {', '.join(faster) or 'none'}")
    return f"Faster than TaskHarbor here. {'; '.join(parts)}." if parts else ""


def link(source: str) -> str:
    return f"[source]({source})" if source.startswith("https:") else f"`{source}`"


def ratio(ours: Figure | None, theirs: Figure | None) -> str:
    if ours is None or theirs is None:
        return "–"
    return rounded(ours.median / theirs.median)


if __name__ == "__main__":
    main()

"""The benchmarks' own machinery: that figures are taken, not what they are."""

import ast
import json
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

from benchmarks.harness.environments import last_line
from benchmarks.peers.catalogue import PEERS

pytestmark = pytest.mark.timeout(200)

DEADLINE_SECONDS = 180  # a busy machine is slow, and that is not what is tested
ROOT = Path(__file__).parents[2]
PEER_MODULES = ROOT / "benchmarks" / "peers"
STAGES = ["decode", "dispatch", "context", "run", "encode", "decide", "whole attempt"]
AROUND = ["shared table", "settle", "exchange, sqlite"]


def run_budget(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "budget.py"), "--runs", "3"]
    command += ["--stores", "sqlite", *options]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
    )


def test_budget_measures_each_stage_of_the_hot_path(tmp_path: Path) -> None:
    baseline = tmp_path / "budget.json"
    done = run_budget("--baseline", str(baseline), "--write")
    assert done.returncode == 0, done.stderr
    stages = json.loads(baseline.read_text())["stages"]
    assert list(stages) == STAGES + AROUND
    assert all(cost["ns"] > 0 and cost["ratio"] > 0 for cost in stages.values())
    # A whole attempt has these in it.
    assert stages["whole attempt"]["ns"] > stages["decode"]["ns"] > stages["dispatch"]["ns"]


def test_budget_names_the_stage_that_became_slower(tmp_path: Path) -> None:
    baseline = tmp_path / "budget.json"
    easy = {"ns": 1e9, "ratio": 1e9}
    stages = dict.fromkeys(STAGES + AROUND, easy) | {"encode": {"ns": 1e-3, "ratio": 1e-3}}
    baseline.write_text(json.dumps({"stages": stages}))
    done = run_budget("--baseline", str(baseline), "--check", "3")
    assert done.returncode == 1
    assert done.stderr.strip() == "3.0 times the baseline or more: encode"


def test_budget_passes_against_an_easy_baseline(tmp_path: Path) -> None:
    baseline = tmp_path / "budget.json"
    easy = {"ns": 1e9, "ratio": 1e9}
    baseline.write_text(json.dumps({"stages": dict.fromkeys(STAGES + AROUND, easy)}))
    assert run_budget("--baseline", str(baseline), "--check", "1.5").returncode == 0


def test_stored_baseline_has_every_stage() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "budget.json").read_text())
    stores = ["exchange, redis", "exchange, postgres"]
    assert list(stored["stages"]) == STAGES + AROUND + stores


def test_measuring_writes_json_tables_and_charts(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- benchmark:worker -->\nold\n<!-- end -->\nafter\n")
    # No time at all is one round.
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--minutes", "0", "--short"]
    command += ["--stores", "sqlite", "--only", "enqueue", "backlog", "--into", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=DEADLINE_SECONDS)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert "| 1,000 waiting (jobs/s) |" in text
    assert "](charts/backlog.svg)" in text
    xml.dom.minidom.parse(str(tmp_path / "docs" / "charts" / "backlog.svg"))
    report = json.loads((tmp_path / "benchmarks" / "results" / "worker.json").read_text())
    assert (report["schema"], report["kind"], report["rounds"]) == (1, "worker", 1)
    assert report["environment"]["versions"].keys() == {"sqlite"}
    assert {figure["unit"] for figure in report["figures"]} == {"jobs/s"}
    assert all(figure["values"] and figure["median"] > 0 for figure in report["figures"])


def functions_of(module: str) -> set[str]:
    """Not imported: it needs the peer's own environment."""
    tree = ast.parse((PEER_MODULES / f"{module}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_peer_is_pinned_and_has_its_module() -> None:
    for peer in PEERS:
        assert (PEER_MODULES / f"{peer.module}.py").exists()
        assert all("==" in requirement for requirement in peer.requirements)
        # Jobs that are parts of a flow are not sent one by one.
        assert functions_of(peer.module) >= ({"fill"} if peer.work else {"fill", "send"})
    assert len({peer.subject for peer in PEERS}) == len(PEERS)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("noise\nERROR: No matching distribution found for x\nhint\n", "ERROR: No matching"),
        ("  | a.b.SomeError: it broke\n  +--------------\n", "a.b.SomeError: it broke"),
        ("only this\n", "only this"),
        ("", "no message"),
    ],
)
def test_a_failed_peer_is_shown_with_its_error(words: str, found: str) -> None:
    assert last_line(words).startswith(found)

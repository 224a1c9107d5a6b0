"""The benchmarks' own machinery: that figures are taken, not what they are."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGES = ["decode", "dispatch", "context", "run", "encode", "decide", "whole attempt"]
AROUND = ["shared table", "settle", "exchange, sqlite"]


def run_budget(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "budget.py"), "--runs", "3"]
    command += ["--stores", "sqlite", *options]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50
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

"""The store's disk is full. (The workers' own is in every storm over SQLite.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("site", ["redis", "postgres"])
def test_a_full_disk_of_the_store_breaks_no_promise(
    site: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Needs root: only root may mount."""
    first = pytestconfig.getoption("first_seed")
    for seed in range(first, first + pytestconfig.getoption("seeds")):
        storm = ["-m", "tests.chaos.small_disk", site, str(seed), str(tmp_path / f"storm-{seed}")]
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", sys.executable, *storm],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"seed {seed}:\n{done.stdout}\n{done.stderr}"

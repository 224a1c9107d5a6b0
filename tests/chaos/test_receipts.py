"""A flow joins its caller's transaction, whatever happens to either."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.receipt_storm import ReceiptStorm


@pytest.mark.timeout(86_400)
def test_a_receipt_and_its_flow_are_stored_together_or_not_at_all(
    tmp_path: Path, long_form: bool, pytestconfig: pytest.Config
) -> None:
    first = pytestconfig.getoption("first_seed")
    for seed in range(first, first + pytestconfig.getoption("seeds")):
        directory = tmp_path / f"storm-{seed}"
        directory.mkdir()
        storm = ReceiptStorm(seed, directory, blows=150 if long_form else 12)
        broken = storm.run()
        print(storm.report(broken))
        again = f"-k receipt --first-seed {seed} --seeds 1"
        assert not broken, f"{storm.report(broken)}\nto run it again: nox -s chaos -- {again}"

"""What users import is typed completely, as pyright sees an installed package with py.typed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import taskharbor

# Beside where the names of `taskharbor` come from.
PUBLIC_MODULES = ("taskharbor", "taskharbor.drivers.base", "taskharbor.testing")


def public_modules() -> set[str]:
    exported = (getattr(taskharbor, name) for name in taskharbor.__all__)
    homes = {value.__module__ for value in exported if hasattr(value, "__module__")}
    return homes.union(PUBLIC_MODULES)


def report() -> dict[str, Any]:
    """What `pyright --verifytypes` says; its exit code also counts internal modules."""
    # It looks for the package in the environment of the first Python on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["pyright", "--verifytypes", "taskharbor", "--ignoreexternal", "--outputjson"],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    completeness: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    return completeness


def test_every_public_symbol_has_a_known_type() -> None:
    completeness = report()
    modules: set[str] = {module["name"] for module in completeness["modules"]}
    public = public_modules()

    def home(symbol: str) -> str:
        return max((m for m in modules if symbol.startswith(f"{m}.")), key=len)

    symbols = [symbol for symbol in completeness["symbols"] if home(symbol["name"]) in public]
    assert {symbol["name"] for symbol in symbols} >= {"taskharbor.drivers.base.Driver"}
    incomplete = {
        symbol["name"]: [diagnostic["message"] for diagnostic in symbol["diagnostics"]]
        for symbol in symbols
        if symbol["isExported"] and not (symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"])
    }
    assert incomplete == {}

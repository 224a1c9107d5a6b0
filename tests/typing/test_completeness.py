"""The package is typed completely, as pyright sees an installed package with py.typed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def verify_types() -> dict[str, Any]:
    """What `pyright --verifytypes` says of every module that has no underscore."""
    # It looks for the package in the environment of the first Python on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["pyright", "--verifytypes", "taskharbor", "--ignoreexternal", "--outputjson"],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,  # it also fails for what is merely "ambiguous", see below
        timeout=280,
    )
    completeness: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    return completeness


def test_every_symbol_has_a_known_type() -> None:
    symbols = {symbol["name"]: symbol for symbol in verify_types()["symbols"]}
    assert "taskharbor.TaskHarbor" in symbols
    # "Ambiguous" is an attribute without an annotation of its own (`self.name = name`, where the
    # parameter has one), which checkers might infer differently; mypy strict accepts it.
    unknown = {
        name: [diagnostic["message"] for diagnostic in symbol["diagnostics"]]
        for name, symbol in symbols.items()
        if symbol["isExported"] and not symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
    }
    assert unknown == {}

"""An environment for each peer: their requirements exclude one another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

INSTALL_SECONDS = 600
_ERROR = re.compile(r"(ERROR|[\w.]*(Error|Exception)): ")


class NotInstalled(Exception):
    """The peer cannot be had here; the message says why."""


def interpreter(least: tuple[int, int]) -> str:
    """This Python if it is new enough, else a newer one from the path."""
    if sys.version_info[:2] >= least:
        return sys.executable
    for minor in range(least[1], least[1] + 5):
        found = shutil.which(f"python{least[0]}.{minor}")
        if found and _runs(found):
            return found
    raise NotInstalled(f"needs Python {least[0]}.{least[1]} or newer, and there is none here")


def _runs(python: str) -> bool:
    """A shim of pyenv is there for versions too that are not selected."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def environment(home: Path, requirements: tuple[str, ...], least: tuple[int, int]) -> str:
    """The Python of an environment with the requirements; made unless an earlier run made it.

    Raises `NotInstalled` with the end of what pip said.
    """
    if not requirements:
        return sys.executable
    name = "-".join(part.translate({ord(c): "_" for c in "=[],<>;"}) for part in requirements)
    directory = home / f"{name}-{least[0]}.{least[1]}"
    python = directory / "bin" / "python"
    complete = directory / "complete"
    if not complete.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        _run([interpreter(least), "-m", "venv", str(directory)])
        _run([str(python), "-m", "pip", "install", "--quiet", *requirements])
        complete.touch()
    return str(python)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"not installed within {INSTALL_SECONDS} seconds") from error
    if done.returncode != 0:
        raise NotInstalled(last_line(done.stderr))


def last_line(words: str) -> str:
    """What went wrong, of a program's last words: pip's or Python's last error, else the last
    line. Exception groups frame their lines."""
    lines = [line for line in (line.strip(" |+-") for line in words.splitlines()) if line]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or ["no message"])[-1][:300]

"""Runs the code in README.md and docs/*.md as a reader would, block by block, in order.

Each document has a directory of its own. What a fence's info string means:

    python                    run; names stay for the document's later blocks
    python title="tasks.py"   written to that file, for later blocks and commands to import
    console                   `$ command` lines go to bash and must exit with 0; lines below one
                              are what it must print, `...` standing for anything; a command that
                              ends with `&` stays in the background until the document ends
    sh                        a bash script that must exit with 0

Other languages are only shown. `<!--- skip: next -->` before a block leaves it out; say why in
another comment. `redis://localhost:6379` and `postgresql://localhost/NAME` stand for servers that
tests start: the block runs against those.
"""

import doctest
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from tests.servers import PostgresServer, RedisServer, scratch_directory

COMMAND_SECONDS = 240
STOP_SECONDS = 10
ROOT = Path(__file__).parents[1]

_REDIS = "redis://localhost:6379"
_POSTGRES = re.compile(r"postgresql://localhost/(\w+)")
_run_python = PythonEvaluator()


class Reader:
    """One document's reader: a directory, an environment and what runs in the background."""

    def __init__(self) -> None:
        self.directory = scratch_directory("document")
        self.background: list[subprocess.Popen[bytes]] = []
        self._left = Path.cwd()
        self._modules = set(sys.modules)

    def enter(self) -> None:
        """Work in the document's directory and import from it."""
        os.chdir(self.directory)
        sys.path.insert(0, str(self.directory))

    def leave(self) -> None:
        """Stop what still runs and forget what the document's files defined."""
        for process in self.background:
            _stop(process)
        os.chdir(self._left)
        sys.path.remove(str(self.directory))
        for name in set(sys.modules) - self._modules:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin is not None and Path(origin).is_relative_to(self.directory):
                del sys.modules[name]

    def start(self, command: str) -> None:
        """Run a command until the document ends."""
        with (self.directory / "background.log").open("ab") as log:
            self.background.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {command}"],
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def run(self, script: str) -> tuple[int, str]:
        """Run a script with bash; exit code, and output with errors in between."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        return done.returncode, done.stdout

    def _environment(self) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TASKHARBOR_")}
        programs = Path(sys.executable).parent
        environment["PATH"] = f"{programs}{os.pathsep}{environment.get('PATH', '')}"
        paths = [str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return environment


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- real servers behind the addresses that documents use ------------------------------------


@cache
def _redis() -> RedisServer:
    return RedisServer().start()


@cache
def _postgres() -> PostgresServer:
    return PostgresServer().start()


@cache
def _database(name: str) -> str:
    return _postgres().create_database(name)


def with_real_servers(text: str) -> str:
    """`text` with the addresses of documents replaced by those of running servers."""
    if _REDIS in text:
        text = text.replace(_REDIS, f"redis://127.0.0.1:{_redis().port}")
    return _POSTGRES.sub(lambda match: _database(match[1]), text)


# --- blocks ----------------------------------------------------------------------------------


def _python(example: Example) -> None:
    example.parsed = type(example.parsed)(
        with_real_servers(example.parsed), example.parsed.offset, example.parsed.line_offset
    )
    _run_python(example)


def _file(example: Example) -> None:
    name, source = example.parsed
    path = example.namespace["reader"].directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(with_real_servers(source))


def _script(example: Example) -> str | None:
    code, output = example.namespace["reader"].run(with_real_servers(str(example.parsed)))
    return None if code == 0 else f"exit code {code}:\n{output}"


def _console(example: Example) -> str | None:
    reader: Reader = example.namespace["reader"]
    for command, expected in commands(str(example.parsed)):
        if command.endswith("&"):
            reader.start(with_real_servers(command.removesuffix("&")))
            continue
        code, output = reader.run(with_real_servers(command))
        if code != 0:
            return f"$ {command}\nexit code {code}:\n{output}"
        if expected and not _matches(expected, output):
            return f"$ {command}\nshould print\n{expected}\nbut printed\n{output}"
    return None


def commands(block: str) -> Iterator[tuple[str, str]]:
    """The `$ ` commands of a console block (continued with a backslash), each with its output."""
    command: str | None = None
    output: list[str] = []
    for line in block.splitlines():
        if command is not None and command.endswith("\\") and not output:
            command += f"\n{line}"
        elif line.startswith("$ "):
            if command is not None:
                yield command, "\n".join(output)
            command, output = line.removeprefix("$ ").strip(), []
        else:
            output.append(line)
    if command is not None:
        yield command, "\n".join(output)


def _matches(expected: str, output: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(f"{expected}\n", output, flags)


def _file_blocks(document: Document) -> Iterable[Region]:
    titled = re.compile(r'python title="(?P<title>[\w./-]+)"$\n', re.MULTILINE)
    for region in RawFencedCodeBlockLexer(titled)(document):
        region.parsed = (region.lexemes["title"], region.lexemes["source"])
        region.evaluator = _file
        yield region


def _setup(namespace: dict[str, Any]) -> None:
    namespace["__name__"] = "__main__"
    namespace["reader"] = Reader()
    namespace["reader"].enter()


def _teardown(namespace: dict[str, Any]) -> None:
    namespace["reader"].leave()


sybil = Sybil(
    path=str(ROOT),
    patterns=["README.md", "docs/*.md"],
    parsers=[
        SkipParser(),
        _file_blocks,
        CodeBlockParser("python", _python),
        CodeBlockParser("console", _console),
        CodeBlockParser("sh", _script),
    ],
    setup=_setup,
    teardown=_teardown,
)

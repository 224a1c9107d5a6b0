"""The runner of the documents' code: it runs what a reader would, and notices what is wrong."""

import textwrap
from pathlib import Path

import pytest
from sybil.example import SybilFailure

from tests.documents import commands, sybil


def read(path: Path, text: str) -> None:
    """Run a document's blocks in order, as the docs session does."""
    path.write_text(textwrap.dedent(text))
    document = sybil.parse(path)
    assert sybil.setup is not None
    assert sybil.teardown is not None
    sybil.setup(document.namespace)
    try:
        for example in document.examples():
            example.evaluate()
    finally:
        sybil.teardown(document.namespace)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def test_blocks_share_names_and_files(page: Path) -> None:
    read(
        page,
        """
        ```python title="shop/tasks.py"
        def double(n): return 2 * n
        ```
        ```python
        from shop.tasks import double
        four = double(2)
        ```
        ```python
        assert four == 4
        ```
        ```console
        $ python -c "from shop.tasks import double; print(double(21))"
        42
        ```
        """,
    )


def test_a_failing_block_fails(page: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        read(page, "```python\n1 / 0\n```\n")


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("```console\n$ false\n```\n", "exit code 1"),
        ("```console\n$ echo yes\nno\n```\n", "should print"),
        ("```console\n$ no-such-command\n```\n", "exit code 127"),
        ("```sh\nfalse | true\n```\n", "exit code 1"),
    ],
)
def test_a_failing_command_fails(page: Path, block: str, complaint: str) -> None:
    with pytest.raises(SybilFailure, match=complaint):
        read(page, block)


def test_output_may_leave_things_out(page: Path) -> None:
    read(
        page,
        "```console\n$ printf 'first\\nsecond 17 ms\\nthird\\n'\nfirst\nsecond ... ms\n...\n```\n",
    )


def test_a_skipped_block_does_not_run(page: Path) -> None:
    read(page, "<!--- skip: next -->\n\n```python\n1 / 0\n```\n\n```python\n1 / 1\n```\n")


def test_a_background_command_runs_until_the_document_ends(page: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    read(
        page,
        f"""
        ```console
        $ sh -c 'echo $$ > {pid}; exec sleep 60' &
        $ timeout 10 sh -c 'until test -s {pid}; do sleep 0.01; done; kill -0 $(cat {pid})'
        ```
        """,
    )
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_documents_reach_real_servers(page: Path) -> None:
    read(
        page,
        """
        ```python
        import psycopg, redis
        with redis.Redis.from_url("redis://localhost:6379/0") as client:
            assert client.ping()
        with psycopg.connect("postgresql://localhost/shop") as connection:
            assert connection.info.dbname == "shop"
        ```
        """,
    )


def test_a_command_may_continue_on_the_next_line() -> None:
    block = "$ echo a \\\n  b\na b\n$ true\n"
    assert list(commands(block)) == [("echo a \\\n  b", "a b"), ("true", "")]

